"""Where a request comes from, by its connection and headers.

Headers can be forged, so they are only used as reasons to refuse.
"""

import ipaddress
import re
import socket
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urlsplit

from werkzeug.datastructures import Headers

from darkroom.asgi import Scope

# What proxies add. Any of them means that the other end of the connection is not the caller.
FORWARDING = (
    "forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip",
    "x-envoy-external-address", "x-original-forwarded-for", "client-ip", "true-client-ip",
    "cf-connecting-ip", "cf-ray", "cdn-loop", "fastly-client-ip", "fly-client-ip",
)  # fmt: skip
FORWARDING_PREFIXES = ("x-forwarded-", "tailscale-", "ngrok-")

HOME_SUFFIXES = ("local", "lan", "home", "home.arpa", "internal")  # what routers add to names

SCHEMES = ("http", "https")

# Of answers to pages: which headers scripts may read, and which methods they may use.
EXPOSED = (
    "ETag, Location, Preference-Applied, Retry-After, WWW-Authenticate, X-Ignored-Fields, "
    "X-Request-Id, X-Should-Retry"
)
PAGE_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
PREFLIGHT_S = 600  # for which a browser remembers what is allowed

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::\d{1,5})?")


def parse(host: str | None) -> IPv4Address | IPv6Address | None:
    """The IP address that a host is, None if it is a name or malformed.

    One like ::ffff:a.b.c.d is IPv4, as sockets for both families show it.
    """
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def canonical(address: str | None) -> str:
    """An address in its standard form; `unknown` if it is none."""
    return str(parse(address) or "unknown")


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    address = parse(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def host_name(host: str | None) -> str:
    """The name or address in a Host header, in lower case; empty if it is malformed."""
    found = _HOST.fullmatch(host or "")
    return found["name"].strip("[]").lower() if found else ""


def names_of_this_machine(more: Iterable[str]) -> frozenset[str]:
    """Names of this machine on the local network: the usual ones, and `more`."""
    own = socket.gethostname().lower()
    short = own.partition(".")[0]
    usual = ("localhost", own, short, *(f"{short}.{suffix}" for suffix in HOME_SUFFIXES))
    return frozenset((*usual, *(name.lower() for name in more)))


def is_forwarded(headers: Headers, protocol: str) -> bool:
    """Whether a proxy may have forwarded a request.

    nginx without further settings adds no header, but uses HTTP/1.0, which current programs do
    not.
    """
    return protocol == "HTTP/1.0" or any(
        name in FORWARDING or name.startswith(FORWARDING_PREFIXES)
        for name in map(str.lower, headers.keys())
    )


def is_foreign(headers: Headers, scheme: str) -> bool:
    """Whether a page of another site sent this request from a browser.

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
    """Whether a Basic challenge would open a password dialog."""
    return "Sec-Fetch-Mode" in headers or "Mozilla/" in headers.get("User-Agent", "")


class AllowedOrigins:
    """The origins whose pages may read answers (Fetch standard, "CORS protocol").

    A page proves nothing by its origin: it needs a token, and gets no further than other foreign
    pages without one. Credentials are never allowed, so an answer that a cookie got could not be
    read. Without any origin, nothing is added to answers.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def include(self, origin: str) -> bool:
        """Whether pages of an origin may use the server."""
        return bool(origin) and ("*" in self._origins or origin in self._origins)

    def headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """What is added to the answer to a request, whatever the answer is."""
        return self.headers_by(dict(scope["headers"]).get(b"origin", b""))

    def headers_by(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        """What is added to the answer to a request with this header `Origin`."""
        if not self._origins:
            return []
        added = [(b"vary", b"Origin")]
        if self.include(origin.decode("latin-1")):
            added += [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", EXPOSED.encode()),
            ]
        return added

    def preflight(self, scope: Scope) -> list[tuple[bytes, bytes]] | None:
        """The headers that answer a preflight request of an allowed page; None if it is no such.

        The page may send what it asks for. It learns from the answer to its request itself whether
        a route exists and takes that.
        """
        sent = dict(scope["headers"])
        origin = sent.get(b"origin", b"").decode("latin-1")
        asks = scope["method"] == "OPTIONS" and b"access-control-request-method" in sent
        if not asks or not self.include(origin):
            return None
        answer = [
            (b"access-control-allow-methods", PAGE_METHODS.encode()),
            (b"access-control-max-age", str(PREFLIGHT_S).encode()),
            (b"vary", b"Access-Control-Request-Headers, Access-Control-Request-Private-Network"),
        ]
        wanted = sent.get(b"access-control-request-headers")
        if wanted is not None:
            answer.append((b"access-control-allow-headers", wanted))
        if sent.get(b"access-control-request-private-network") == b"true":
            answer.append((b"access-control-allow-private-network", b"true"))
        return answer


class Proxies:
    """The trusted proxies in front of this server. Without any, no header changes the caller.

    Each proxy of a chain appends the address of its own caller to `X-Forwarded-For`. So the
    entries from the right up to the first address that is no trusted proxy can be trusted, and
    those to the left of it cannot.
    """

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        self._networks = tuple(networks)

    def include(self, address: str) -> bool:
        """Whether an address is that of a trusted proxy."""
        parsed = parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def look_behind(self, scope: Scope) -> Scope:
        """A request with the address and scheme that its caller used for the first proxy.

        What is no address ends the search: then the last proxy we know of is who asks. The host is
        not looked for: our proxies pass `Host` on, and one that does not override
        `X-Forwarded-Host` hands on whatever a page wrote into it.
        """
        address = (scope["client"] or ("", 0))[0]
        if not self.include(address):
            return scope
        for hop in _values(scope, b"x-forwarded-for"):
            if parse(hop) is None:
                break
            address = hop
            if not self.include(hop):
                break
        scheme = next(_values(scope, b"x-forwarded-proto"), "").lower()
        if scheme not in SCHEMES:
            scheme = scope["scheme"]
        return {**scope, "client": (address, 0), "scheme": scheme}


def _values(scope: Scope, name: bytes) -> Iterator[str]:
    """A list's members from the right, over all headers of that name (RFC 9110, section 5.3)."""
    for found, value in reversed(list(scope["headers"])):
        if found == name:
            yield from (part.strip() for part in reversed(value.decode("latin-1").split(",")))
