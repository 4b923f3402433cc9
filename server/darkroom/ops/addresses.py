"""The addresses and URLs at which this server is reached."""

import contextlib
import ipaddress
import socket

import ifaddr

from darkroom.config import Settings

EVERYWHERE = ("0.0.0.0", "::", "")

# Addresses reserved for documentation (RFC 5737, RFC 3849): the route to them shows which of our
# own addresses faces other machines. Nothing is sent.
_ELSEWHERE = ((socket.AF_INET, "203.0.113.1"), (socket.AF_INET6, "2001:db8::1"))


def lan_addresses() -> tuple[str, ...]:
    """This machine's addresses that other machines may reach, the likeliest first."""
    found = []
    for family, elsewhere in _ELSEWHERE:
        with (
            contextlib.suppress(OSError),
            socket.socket(family, socket.SOCK_DGRAM) as probe,
        ):
            probe.connect((elsewhere, 9))
            found.append(probe.getsockname()[0])
    # IPv4 of every interface, for a machine without a route to the internet.
    found += [str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    return tuple(dict.fromkeys(address for address in found if _is_reachable(address)))


def _is_reachable(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)


def is_local_only(host: str) -> bool:
    """Whether a server that listens on `host` is reachable from this machine only."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def url(settings: Settings, host: str) -> str:
    """The server's base URL at a host name or address."""
    scheme = "http" if settings.tls.mode == "off" else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"


def local_url(settings: Settings) -> str:
    """The server's base URL for this machine."""
    here = settings.host in EVERYWHERE or is_local_only(settings.host)
    return url(settings, "localhost" if here else settings.host)


def urls(settings: Settings) -> tuple[str, ...]:
    """The server's base URLs for other machines, or the local one if there are none."""
    if settings.public_url is not None:
        return (settings.public_url,)
    hosts = lan_addresses() if settings.host in EVERYWHERE else (settings.host,)
    if settings.host == "0.0.0.0":
        hosts = tuple(host for host in hosts if ":" not in host)
    return tuple(url(settings, host) for host in hosts) or (local_url(settings),)


def pairing_url(base_url: str, code: str) -> str:
    """URL of the first page with the code filled in: in the fragment, which no log contains."""
    return f"{base_url}/#pair={code}"
