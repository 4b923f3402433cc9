"""Where this server is reached: addresses of this machine, and URLs made of them."""

import contextlib
import ipaddress
import socket
import struct
import sys

from darkroom.config import Settings

EVERYWHERE = ("0.0.0.0", "::", "")
_SIOCGIFADDR = 0x8915  # netdevice(7)

# Addresses that belong to nobody (RFC 5737, RFC 3849): asking for the way to them shows which of
# our own addresses faces other machines. Nothing is sent.
_ELSEWHERE = ((socket.AF_INET, "203.0.113.1"), (socket.AF_INET6, "2001:db8::1"))


def lan_addresses() -> tuple[str, ...]:
    """This machine's own addresses that others may reach, the likeliest first."""
    found = []
    for family, elsewhere in _ELSEWHERE:
        with (
            contextlib.suppress(OSError),
            socket.socket(family, socket.SOCK_DGRAM) as probe,
        ):
            probe.connect((elsewhere, 9))
            found.append(probe.getsockname()[0])
    found += _of_interfaces()
    return tuple(dict.fromkeys(address for address in found if _is_reachable(address)))


def _of_interfaces() -> list[str]:
    """IPv4 addresses of the network interfaces, for a machine without a way to the internet."""
    if sys.platform != "linux":
        with contextlib.suppress(OSError):
            return socket.gethostbyname_ex(socket.gethostname())[2]
        return []
    import fcntl

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                asked = struct.pack("256s", name.encode()[:15])
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, asked)
                found.append(socket.inet_ntoa(answer[20:24]))
    return found


def _is_reachable(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)


def is_local_only(host: str) -> bool:
    """Whether a server that listens on `host` is reached from this machine alone."""
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
    """The first page with the code filled in. A fragment is never sent, so no log has it."""
    return f"{base_url}/#pair={code}"
