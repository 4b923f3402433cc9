"""Ray's processes listen on all addresses of a machine. Only a box of the fleet gets in."""

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil
import pytest

from darkroom.config import Settings
from darkroom.ops.fleet import node, node_tls
from darkroom.ops.supervisor import Child, end
from tests.waiting import PATIENCE_S, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ADDRESS = "127.0.0.2"  # one at which Ray listens on all addresses, as on a network
PORT = 17870  # beside the default one, which other tests use
TOKEN, ANOTHER = "1f" * 32, "2e" * 32
LOCAL = ("127.0.0.1", "::1")


PROGRAM = f"""
import ray

ray.init("{ADDRESS}:{PORT}", namespace="fleet", _node_ip_address="{ADDRESS}", log_to_driver=False)


@ray.remote(num_cpus=0)
class Guest:
    def greet(self):
        return "got in"


guest = Guest.options(name="guest", lifetime="detached", get_if_exists=True).remote()
print(ray.get(guest.greet.remote()))
"""


class Head:
    """A head of Ray, kept running as `darkroom fleet start` does: a busy machine may end it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_dir=folder, fleet={"address": ADDRESS, "port": PORT})
        environment = node.environment(self.settings, TOKEN, ADDRESS, folder / "ray")
        self.child = Child("ray", node.head_command(self.settings), variables=environment)

    def open_ports(self) -> dict[int, tuple[str, str]]:
        """Those that other machines may reach, each with its address and program."""
        self.child.look(time.monotonic())
        found = {}
        assert self.child.process is not None
        for each in psutil.Process(self.child.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                for one in each.net_connections("tcp"):
                    if one.status == psutil.CONN_LISTEN and one.laddr.ip not in LOCAL:
                        found[one.laddr.port] = (one.laddr.ip, each.name())
        return found


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    pytest.importorskip("ray")
    started = Head(tmp_path_factory.mktemp("head"))
    try:
        eventually(lambda: PORT in started.open_ports())
        yield started
    finally:
        if started.child.process is not None:
            end([started.child.process], PATIENCE_S, hurries=lambda: False)


@pytest.fixture(scope="module")
def guest(head: Head, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a program prints that knows the token, and starts another on the head."""
    settings = head.settings.model_copy(update={"data_dir": tmp_path_factory.mktemp("guest")})
    environment = node.environment(settings, TOKEN, ADDRESS)

    def ask() -> str:
        head.open_ports()  # which starts it again if it has ended
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.stdout

    return eventually(ask)


def certificate(folder: Path, token: str) -> ssl.SSLContext:
    """A client with the certificate of who has that token."""
    node_tls.environment(folder, token, ADDRESS)
    client = stranger()
    client.load_cert_chain(folder / "node.pem", folder / "node.key")
    return client


def stranger() -> ssl.SSLContext:
    """A client without a certificate."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_alpn_protocols(["h2"])
    return client


def is_let_in(port: int, client: ssl.SSLContext) -> bool:
    """Whether the server says something after the handshake, in which it asks who this is."""
    with socket.create_connection((ADDRESS, port), PATIENCE_S) as connection:
        try:
            with client.wrap_socket(connection) as secured:
                return secured.recv(1) != b""
        except (ssl.SSLError, ConnectionError):
            return False


def test_who_knows_the_token_gets_in(guest: str) -> None:
    assert guest == "got in\n"


@pytest.mark.usefixtures("guest")
def test_nobody_else_gets_through_a_handshake(head: Head, tmp_path: Path) -> None:
    own, other = (certificate(tmp_path / token, token) for token in (TOKEN, ANOTHER))
    everywhere = [port for port, (address, _) in head.open_ports().items() if address != ADDRESS]

    assert len(everywhere) >= 4, "the head's, the node's two, and the other program's"
    for port in everywhere:
        assert is_let_in(port, own), head.open_ports()[port]
        assert not is_let_in(port, other), head.open_ports()[port]
        assert not is_let_in(port, stranger()), head.open_ports()[port]


@pytest.mark.usefixtures("guest")
def test_a_certificate_without_the_token_is_not_enough(head: Head, tmp_path: Path) -> None:
    settings = head.settings.model_copy(update={"data_dir": tmp_path})
    environment = {**node.environment(settings, TOKEN, ADDRESS), "RAY_AUTH_TOKEN": ANOTHER}
    command = [sys.executable, "-c", PROGRAM]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "Unauthenticated" in done.stderr


@pytest.mark.usefixtures("guest")
def test_the_others_listen_on_the_nodes_address_and_ask_for_the_token(head: Head) -> None:
    others = [port for port, (address, _) in head.open_ports().items() if address == ADDRESS]

    assert PORT + node.PORTS["runtime-env-agent-port"] in others
    for port in others:
        answer = httpx2.get(f"http://{ADDRESS}:{port}/", timeout=PATIENCE_S)
        assert answer.status_code == httpx2.codes.UNAUTHORIZED, head.open_ports()[port]
