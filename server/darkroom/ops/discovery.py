"""Announces the server on the local network (multicast DNS, RFC 6762; services, RFC 6763).

The announcement contains what `/healthz` answers without a token, and the address.
"""

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Iterator

import structlog
from zeroconf import Error, IPVersion, ServiceInfo, Zeroconf

import darkroom
from darkroom.config import Settings
from darkroom.ops import addresses

log = structlog.get_logger()

DARKROOM = "_darkroom._tcp.local."
LOOK_EVERY_S = 10.0  # a machine may start before its network does, and move to another one
LONGEST_LABEL = 63  # bytes of one part of a name (RFC 1035, section 2.3.4)
GOODBYE_S = 5.0


def is_wanted(settings: Settings) -> bool:
    """Whether to announce the server: not if only this machine can reach it."""
    return settings.discovery.enabled and not addresses.is_local_only(settings.host)


def services(settings: Settings, hosts: tuple[str, ...]) -> tuple[ServiceInfo, ...]:
    """The two services to announce: a Darkroom, and a web page.

    Args:
        settings: of the server.
        hosts: addresses at which it is reached.
    """
    scheme = "http" if settings.tls.mode == "off" else "https"
    own = socket.gethostname().partition(".")[0]
    label = f"Darkroom on {own}".encode()[:LONGEST_LABEL].decode(errors="ignore")
    properties = {"version": darkroom.__version__, "scheme": scheme, "path": "/"}
    return tuple(
        ServiceInfo(
            kind,
            f"{label}.{kind}",
            port=settings.port,
            parsed_addresses=list(hosts),
            properties=properties,
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
        failed = False
        while not self._stopping.is_set():
            hosts = self._hosts()
            try:
                with _announced(self._settings, hosts):
                    failed = False
                    while self._hosts() == hosts and not self._stopping.wait(LOOK_EVERY_S):
                        pass
            except (OSError, Error) as error:
                if not failed:  # once, not every ten seconds
                    log.warning("the server cannot be announced on the network", error=str(error))
                failed = True
                self._stopping.wait(LOOK_EVERY_S)

    def _hosts(self) -> tuple[str, ...]:
        host = self._settings.host
        if host not in addresses.EVERYWHERE:
            return (host,)
        found = addresses.lan_addresses()
        return tuple(address for address in found if host != "0.0.0.0" or ":" not in address)


@contextlib.contextmanager
def _announced(settings: Settings, hosts: tuple[str, ...]) -> Iterator[None]:
    """Context in which the server is announced. Without an address it does nothing."""
    if not hosts:
        yield
        return
    zeroconf = Zeroconf(interfaces=list(hosts), ip_version=_family(hosts))
    try:
        for service in services(settings, hosts):
            # A number is added to the name of a second server of the same name.
            zeroconf.register_service(service, allow_name_change=True)
        log.info("the server is announced on the network", addresses=hosts)
        yield
    finally:
        zeroconf.close()


def _family(hosts: tuple[str, ...]) -> IPVersion:
    """The versions of IP to use: sockets of a family without an address cannot be opened."""
    sixes = sum(ipaddress.ip_address(host).version == 6 for host in hosts)
    if sixes == 0:
        return IPVersion.V4Only
    return IPVersion.V6Only if sixes == len(hosts) else IPVersion.All
