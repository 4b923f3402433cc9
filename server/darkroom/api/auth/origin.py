"""Where a request comes from, by what the connection and the browser say of it.

Nothing here trusts a caller's word for more than it can prove: headers are only ever read as
reasons to refuse.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from werkzeug.datastructures import Headers

# What proxies add. Any of them means that the other end of the connection is not the caller.
FORWARDING = frozenset(
    {
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-envoy-external-address",
        "x-original-forwarded-for",
        "client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "cf-ray",
        "cdn-loop",
        "fastly-client-ip",
        "fly-client-ip",
    }
)
FORWARDING_PREFIXES = ("x-forwarded-", "tailscale-", "ngrok-")

HOME_SUFFIXES = ("local", "lan", "home", "home.arpa", "internal")  # what routers add to names

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::\d{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    return host == "localhost" or (is_address(host) and parse(host).is_loopback)


def is_address(host: str) -> bool:
    """Whether a host is an IP address rather than a name."""
    try:
        parse(host)
    except ValueError:
        return False
    return True


def parse(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IP address in its own family: a socket for both shows IPv4 callers as ::ffff:a.b.c.d.

    Raises:
        ValueError: it is none.
    """
    address = ipaddress.ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address


def canonical(address: str | None) -> str:
    """One way of writing the other end's address; `unknown` for what is none."""
    try:
        return str(parse(address or ""))
    except ValueError:
        return "unknown"


def host_name(host: str | None) -> str:
    """The name or address in a Host header, in small letters; empty if it cannot be one."""
    found = _HOST.fullmatch(host or "")
    return found["name"].strip("[]").lower() if found else ""


def names_of_this_machine(more: Iterable[str]) -> frozenset[str]:
    """By which names people on the local network may reach this machine."""
    own = socket.gethostname().lower()
    short = own.partition(".")[0]
    return frozenset(
        ("localhost", own, short, *(f"{short}.{suffix}" for suffix in HOME_SUFFIXES))
    ) | frozenset(name.lower() for name in more)


def is_forwarded(headers: Headers, protocol: str) -> bool:
    """Whether somebody else's request may be passed on here.

    nginx without further settings adds no header at all, but speaks HTTP/1.0, which programs of
    this century do not.
    """
    return protocol == "HTTP/1.0" or any(
        name in FORWARDING or name.startswith(FORWARDING_PREFIXES)
        for name in map(str.lower, headers.keys())
    )


def is_foreign(headers: Headers, scheme: str) -> bool:
    """Whether a page that is not ours sends this request from somebody's browser.

    Browsers say so in `Origin` (all but plain GETs) and in `Sec-Fetch-Site` (everything sent to
    https or localhost). Another port of the same machine is another site, which a browser calls
    `same-site`.
    """
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    origin = headers.get("Origin")
    if origin is None:
        return False
    try:
        sent_by = urlsplit(origin)
    except ValueError:
        return True
    if not sent_by.netloc or sent_by.netloc.lower() != headers.get("Host", "").lower():
        return True
    # What came over TLS must come from a page that did. The reverse is a proxy that ends TLS.
    return scheme == "https" and sent_by.scheme != "https"


def is_browser(headers: Headers) -> bool:
    """Whether a person may be shown a password dialog for a Basic challenge."""
    return "Sec-Fetch-Mode" in headers or "Mozilla/" in headers.get("User-Agent", "")
