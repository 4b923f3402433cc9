"""The server's addresses and URLs, and their announcement on the local network.

Multicast DNS (RFC 6762; services, RFC 6763) announces the address and what `/healthz` answers
without a token. `zeroconf` is imported only for that, because it is slow to import.
"""

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import ifaddr
import structlog

import darkroom
from darkroom.config import Settings

if TYPE_CHECKING:
    from zeroconf import ServiceInfo

log = structlog.get_logger()

EVERYWHERE = ("0.0.0.0", "::")
# Addresses reserved for documentation (RFC 5737, RFC 3849): the route to them shows which of our
# own addresses faces other machines. Nothing is sent.
_ELSEWHERE = ((socket.AF_INET, "203.0.113.1"), (socket.AF_INET6, "2001:db8::1"))

DARKROOM = "_darkroom._tcp.local."
LOOK_EVERY_S = 10.0  # a machine may start before its network does, and move to another one
LONGEST_LABEL = 63  # bytes of one part of a name (RFC 1035, section 2.3.4)
GOODBYE_S = 5.0


# --- addresses -----------------------------------------------------------------------------


def lan_addresses() -> tuple[str, ...]:
    """This machine's addresses that other machines may reach, the likeliest first."""
    found = []
    for family, elsewhere in _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            found.append(probe.getsockname()[0])
    # IPv4 of every interface, for a machine without a route to the internet.
    found += [str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    parsed = [ipaddress.ip_address(address) for address in dict.fromkeys(found)]
    return tuple(
        str(ip) for ip in parsed if not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)
    )


def listening_addresses(settings: Settings) -> tuple[str, ...]:
    """The addresses at which other machines may reach the server."""
    if settings.host not in EVERYWHERE:
        return (settings.host,)
    only_ipv4 = settings.host == "0.0.0.0"
    return tuple(found for found in lan_addresses() if not (only_ipv4 and ":" in found))


def is_local_only(host: str) -> bool:
    """Whether a server that listens on `host` is reachable from this machine only."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def local_url(settings: Settings) -> str:
    """The server's base URL for this machine."""
    # Other loopback addresses may have no name.
    named = settings.host in (*EVERYWHERE, "127.0.0.1")
    return _url(settings, "localhost" if named else settings.host)


def urls(settings: Settings) -> tuple[str, ...]:
    """The server's base URLs for other machines, or the local one if there are none."""
    if settings.public_url is not None:
        return (settings.public_url,)
    found = tuple(_url(settings, host) for host in listening_addresses(settings))
    return found or (local_url(settings),)


def pairing_url(base_url: str, code: str) -> str:
    """URL of the first page with the code filled in: in the fragment, which no log contains."""
    return f"{base_url}/#pair={code}"


def _url(settings: Settings, host: str) -> str:
    return f"{_scheme(settings)}://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _scheme(settings: Settings) -> str:
    return "http" if settings.tls.mode == "off" else "https"


# --- announcement --------------------------------------------------------------------------


def is_wanted(settings: Settings) -> bool:
    """Whether to announce the server: not if only this machine can reach it."""
    return settings.discovery.enabled and not is_local_only(settings.host)


def services(settings: Settings, hosts: tuple[str, ...]) -> "tuple[ServiceInfo, ...]":
    """The two services to announce at addresses: a Darkroom, and a web page."""
    from zeroconf import ServiceInfo

    scheme = _scheme(settings)
    own = socket.gethostname().partition(".")[0]
    label = f"Darkroom on {own}".encode()[:LONGEST_LABEL].decode(errors="ignore")
    return tuple(
        ServiceInfo(
            kind,
            f"{label}.{kind}",
            port=settings.port,
            parsed_addresses=list(hosts),
            properties={"version": darkroom.__version__, "scheme": scheme, "path": "/"},
            server=f"{own}.local.",
        )
        for kind in (DARKROOM, f"_{scheme}._tcp.local.")
    )


class Beacon:
    """Announces the server until stopped, and follows changes of the machine's addresses."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beacon", daemon=True)

    def start(self) -> None:
        """Start the thread. If nothing can be announced, that is logged and tried again."""
        self._thread.start()

    def stop(self) -> None:
        """Withdraw the announcement, so that nobody lists a stopped server. Needs no `start`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(GOODBYE_S)

    def _run(self) -> None:
        import zeroconf

        failed = False
        while not self._stopping.is_set():
            try:
                hosts = _numeric(listening_addresses(self._settings))
                with _announced(self._settings, hosts):
                    failed = False
                    while _numeric(listening_addresses(self._settings)) == hosts:
                        if self._stopping.wait(LOOK_EVERY_S):
                            return
            except (OSError, zeroconf.Error) as error:
                if not failed:  # once, not every ten seconds
                    log.warning("the server cannot be announced on the network", error=str(error))
                failed = True
                self._stopping.wait(LOOK_EVERY_S)


def _numeric(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Addresses, and those that names stand for, without this machine's loopback.

    Raises:
        OSError: a name is not known.
    """
    found: dict[str, None] = {}
    for host in hosts:
        for *_, (address, *_) in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
            if not ipaddress.ip_address(str(address)).is_loopback:
                found[str(address)] = None
    return tuple(found)


@contextlib.contextmanager
def _announced(settings: Settings, hosts: tuple[str, ...]) -> Iterator[None]:
    """Context in which the server is announced. Without an address it does nothing."""
    from zeroconf import IPVersion, Zeroconf

    if not hosts:
        yield
        return
    # Sockets of a family without an address cannot be opened.
    families = {ipaddress.ip_address(host).version for host in hosts}
    version = IPVersion.All
    if len(families) == 1:
        version = IPVersion.V4Only if families == {4} else IPVersion.V6Only
    zeroconf = Zeroconf(interfaces=list(hosts), ip_version=version)
    try:
        for service in services(settings, hosts):
            # A number is added to the name of a second server of the same name.
            zeroconf.register_service(service, allow_name_change=True)
        log.info("the server is announced on the network", addresses=hosts)
        yield
    finally:
        zeroconf.close()
