"""Whose word on where a request comes from is believed: proxies that the owner named."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network

from darkroom.api.auth import origin
from darkroom.asgi import Scope

Network = IPv4Network | IPv6Network

SCHEMES = ("http", "https")


class Proxies:
    """The proxies in front of this server. Without any, no header changes who is asking.

    Each proxy of a chain appends the address that it was called from to `X-Forwarded-For`, so what
    stands to the right of the first stranger was written by ours, and what stands to the left of
    them by who knows whom.

    Args:
        networks: where ours are.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)

    def include(self, address: str) -> bool:
        """Whether one of them has this address."""
        if not origin.is_address(address):
            return False
        parsed = origin.parse(address)
        return any(parsed in network for network in self._networks)

    def look_behind(self, scope: Scope) -> Scope:
        """A request as its caller sent it to the first of our proxies: their address and scheme.

        What is no address ends the search: then the last proxy we know of is who asks. The host is
        not looked for: our proxies pass `Host` on, and one that does not override
        `X-Forwarded-Host` hands on whatever a page wrote into it.
        """
        peer = (scope["client"] or ("", 0))[0]
        if not self.include(peer):
            return scope
        return {
            **scope,
            "client": (self._caller(peer, _values(scope, b"x-forwarded-for")), 0),
            "scheme": _scheme(scope),
        }

    def _caller(self, peer: str, hops: Iterator[str]) -> str:
        """The first address from the right that is not ours; the leftmost if all are."""
        address = peer
        for hop in hops:
            if not origin.is_address(hop):
                break
            address = hop
            if not self.include(hop):
                break
        return address


def _scheme(scope: Scope) -> str:
    said = next(_values(scope, b"x-forwarded-proto"), "").lower()
    return said if said in SCHEMES else str(scope["scheme"])


def _values(scope: Scope, name: bytes) -> Iterator[str]:
    """A list's members from the right, over all headers of that name (RFC 9110, section 5.3)."""
    for found, value in reversed(list(scope["headers"])):
        if found == name:
            yield from (part.strip() for part in reversed(value.decode("latin-1").split(",")))
