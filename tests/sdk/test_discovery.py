"""Finding a server on a network of one's own making."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from zeroconf import ServiceInfo

from darkroom.config import DiscoverySettings, Settings, TlsSettings
from darkroom.ops import discovery
from darkroom_client import FoundServer
from darkroom_client.discovery import SERVICE, server_of
from tests.programs import program
from tests.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.slow

COMMAND = (sys.executable, "-m", "darkroom_client")
SERVER = "10.78.60.1"


@dataclass(frozen=True)
class Network:
    """Two machines on a wire, by the names of their network namespaces."""

    box: str
    desk: str

    def on(self, machine: str, *command: str) -> list[str]:
        return [program("ip"), "netns", "exec", machine, *command]


def ip(*arguments: str) -> None:
    subprocess.run([program("ip"), *arguments], check=True, capture_output=True)


@pytest.fixture
def network() -> Iterator[Network]:
    """A wire between two machines that have nothing else."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can make networks")
    number = os.getpid()
    net = Network(f"darkroom-box-{number}", f"darkroom-desk-{number}")
    ends = (f"drb{number}", f"drd{number}")  # at most 15 characters
    try:
        ip("netns", "add", net.box)
    except subprocess.CalledProcessError:
        pytest.skip("this container's root may not make networks")
    try:
        ip("netns", "add", net.desk)
        ip("link", "add", ends[0], "netns", net.box, "type", "veth",
           "peer", "name", ends[1], "netns", net.desk)  # fmt: skip
        for name, end, address in (
            (net.box, ends[0], SERVER),
            (net.desk, ends[1], "10.78.60.2"),
        ):
            ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", end, "up")
        yield net
    finally:
        for name in (net.box, net.desk):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def found(network: Network, timeout_s: float = 1.5) -> list[dict[str, str]]:
    """What somebody at the desk finds."""
    command = network.on(network.desk, *COMMAND, "discover", "--json", "--timeout", str(timeout_s))
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert result.returncode == (0 if result.stdout else 5), result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_server_is_found_across_the_network_until_it_ends(
    network: Network, tmp_path: Path
) -> None:
    serve = [sys.executable, "-m", "darkroom", "serve", "--port", "7860"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            network.on(network.box, *serve, "--data-dir", str(tmp_path / "data")),
            stdout=log,
            stderr=log,
        )
    try:
        (one,) = eventually(lambda: found(network), about=(tmp_path / "log").read_text)
        assert one["url"] == f"http://{SERVER}:7860"
        assert one["name"].startswith("Darkroom on ")

        # The door stays shut to who has no token.
        asked = network.on(network.desk, *COMMAND, "models", "--url", one["url"])
        eventually(lambda: subprocess.run(asked, capture_output=True, check=False).returncode == 4)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE_S)
    assert found(network) == []


def test_a_network_where_nobody_serves(network: Network) -> None:
    assert found(network, 0.5) == []


def test_who_cannot_come_is_not_told() -> None:
    assert discovery.is_wanted(Settings(host="0.0.0.0"))
    assert not discovery.is_wanted(Settings(host="127.0.0.1"))
    assert not discovery.is_wanted(Settings(host="localhost"))
    quiet = DiscoverySettings(enabled=False)
    assert not discovery.is_wanted(Settings(host="0.0.0.0", discovery=quiet))


def test_a_server_that_listens_on_a_name_is_announced_at_its_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [(0, 0, 0, "", (address, 0)) for address in ("127.0.1.1", "192.0.2.1", "192.0.2.1")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_arguments, **_named: found)

    assert discovery._numeric(("gpu-box",)) == ("192.0.2.1",)


def test_programs_and_browsers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "ü" * 60 + ".example.org")
    tls = TlsSettings(mode="local_ca")
    ours, pages = discovery.services(Settings(port=7861, tls=tls), ("192.0.2.1",))
    assert (ours.type, pages.type) == ("_darkroom._tcp.local.", "_https._tcp.local.")
    assert ours.parsed_addresses() == ["192.0.2.1"]
    assert ours.port == 7861
    assert len(ours.name.removesuffix("." + ours.type).encode()) <= 63
    told = dict(ours.decoded_properties)
    server = server_of(ours.name, ours.parsed_addresses(), ours.port, told)
    assert isinstance(server, FoundServer)
    assert server.url == "https://192.0.2.1:7861"


@pytest.mark.parametrize(
    "info",
    [
        ServiceInfo(SERVICE, f"a.{SERVICE}", port=1, properties={"scheme": "javascript"}),
        ServiceInfo(SERVICE, f"a.{SERVICE}", port=1),
        ServiceInfo(SERVICE, f"a.{SERVICE}", port=0, parsed_addresses=["192.0.2.1"]),
    ],
)
def test_what_cannot_be_reached_is_no_server(info: ServiceInfo) -> None:
    told = dict(info.decoded_properties)
    assert server_of(info.name, info.parsed_addresses(), info.port, told) is None


def test_a_client_looks_for_servers(network: Network) -> None:
    code = "from darkroom_client import Client; print(Client.discover(0.2))"
    command = network.on(network.desk, sys.executable, "-c", code)
    assert subprocess.check_output(command).strip() == b"()"
