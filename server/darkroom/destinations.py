"""Addresses that this server may call: strict parsing, and comparison with what the owner allows.

The check uses the HTTP client's own parser, so that the check and the call cannot read an address
in two different ways.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from darkroom.errors import DarkroomError

PORTS = {"http": 80, "https": 443}
MAX_CHARS = 2000
PLAIN = re.compile(r"[!-~]+")  # ASCII without spaces and control characters
# Some servers read these as a step up in the path or as a slash, others do not.
TRICKS = re.compile(r"%2f|%5c|/(\.|%2e){1,2}(/|$)", re.IGNORECASE)
HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")


class DestinationError(DarkroomError, ValueError):
    """The address cannot be called. Says why, without the address, which may contain secrets."""


@dataclass(frozen=True)
class Destination:
    """An http or https address.

    Attributes:
        url: complete; may contain secrets.
        origin: scheme, host and port, which is always included; without secrets.
        path: percent-encoded, as it is sent.
    """

    url: str = field(repr=False)
    origin: str
    path: str = field(repr=False)
    has_query: bool

    def is_below(self, prefix: "Destination") -> bool:
        """Whether the origin is the same, and the path is the prefix's or below it."""
        folder = prefix.path.rstrip("/")
        same = self.origin == prefix.origin
        return same and (self.path == folder or self.path.startswith(f"{folder}/"))


def parse(text: str) -> Destination:
    """Parse an address.

    Raises:
        DestinationError: it is not a plain http or https address without credentials.
    """
    import httpx2  # slow to import, and few commands parse an address

    if len(text) > MAX_CHARS:
        raise DestinationError(f"is longer than {MAX_CHARS} characters")
    if not PLAIN.fullmatch(text):
        raise DestinationError("has characters other than plain ASCII without spaces")
    if "\\" in text or TRICKS.search(text.partition("?")[0]):
        raise DestinationError("has a path that servers read in different ways")
    if "#" in text:
        raise DestinationError("has a fragment, which is never sent")
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        raise DestinationError("is not an address") from None
    if url.scheme not in PORTS or not url.host or not text.lower().startswith(f"{url.scheme}://"):
        raise DestinationError("is not an http:// or https:// address")
    if "@" in text.split("/")[2]:
        raise DestinationError("has a name or a password before the host")
    host = url.raw_host.decode().lower()
    if ":" in host:  # IPv6
        host = f"[{host}]"
    if not HOST.fullmatch(host):
        raise DestinationError("has no host that can be looked up")
    port = PORTS[url.scheme] if url.port is None else url.port
    if not 0 < port < 2**16:
        raise DestinationError("has no port from 1 to 65535")
    path, question, _ = url.raw_path.decode().partition("?")
    return Destination(str(url), f"{url.scheme}://{host}:{port}", path, bool(question))


def parse_prefix(text: str) -> Destination:
    """Parse an allowed prefix: it allows its path and everything below it.

    Raises:
        DestinationError: it is not an address, or has a query.
    """
    found = parse(text)
    if found.has_query:
        raise DestinationError("has a query; allow the path, any query goes with it")
    return found


def is_allowed(destination: Destination, prefixes: Iterable[str]) -> bool:
    """Whether one of the allowed prefixes covers the address."""
    return any(destination.is_below(parse_prefix(prefix)) for prefix in prefixes)
