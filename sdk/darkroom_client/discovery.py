"""Servers that announce themselves on the local network (multicast DNS)."""

import time
from dataclasses import dataclass

from darkroom_client.core.errors import DarkroomError

SERVICE = "_darkroom._tcp.local."
LISTEN_S = 3.0
MOST = 100  # of servers; announcements beyond that are not genuine
ASK_S = 1.0  # for what an announcement has left out


class DiscoveryError(DarkroomError):
    """This machine cannot listen to the network."""


@dataclass(frozen=True)
class FoundServer:
    """A server as it announces itself. Any program on the network may announce anything.

    Attributes:
        name: for people, as "Darkroom on gpu-box".
        url: its base URL, for `Client`.
        version: of the server; empty if it does not say.
    """

    name: str
    url: str
    version: str


def discover(timeout_s: float = LISTEN_S) -> tuple[FoundServer, ...]:
    """Listen for so long, and return who was heard, by name.

    Raises:
        DiscoveryError: this machine cannot listen.
        ImportError: zeroconf is not installed.
    """
    try:
        from zeroconf import IPVersion, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf
    except ImportError:
        raise ImportError("pip install darkroom-client[discover] to find servers") from None

    heard: set[str] = set()

    def hear(*, name: str, state_change: ServiceStateChange, **_: object) -> None:
        if state_change is ServiceStateChange.Removed:
            heard.discard(name)
        elif len(heard) < MOST:
            heard.add(name)

    try:
        zeroconf = Zeroconf(ip_version=IPVersion.V4Only)
    except OSError as error:
        raise DiscoveryError(f"cannot listen to the network: {error}") from error
    found = []
    with zeroconf:
        browser = ServiceBrowser(zeroconf, SERVICE, handlers=[hear])
        time.sleep(timeout_s)
        browser.cancel()
        until = time.monotonic() + ASK_S
        for name in sorted(heard):
            info = ServiceInfo(SERVICE, name)
            # What was heard along with the name is not asked for again.
            if info.request(zeroconf, max(1.0, 1000 * (until - time.monotonic()))):
                hosts = info.parsed_addresses(IPVersion.V4Only)
                found.append(server_of(name, hosts, info.port, info.decoded_properties))
    return tuple(server for server in found if server is not None)


def server_of(
    name: str, hosts: list[str], port: int | None, properties: dict[str, str | None]
) -> FoundServer | None:
    """The announced server, or None if it cannot be reached."""
    scheme = properties.get("scheme") or "http"
    if scheme not in ("http", "https") or not hosts or not port:
        return None
    label = name.removesuffix("." + SERVICE)
    return FoundServer(label, f"{scheme}://{hosts[0]}:{port}", properties.get("version") or "")
