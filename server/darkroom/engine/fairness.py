"""Whose turn it is, when not everybody can share one call."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


class Deficit:
    """Deals time out evenly between keys, by what each has been given so far.

    Deficit round robin with time itself as the currency: a key is charged what its turn took, and
    the one charged least goes next. So a picture whose steps take a second gets one for every
    second's worth of quick ones, and neither starves the other
    (Shreedhar and Varghese, https://doi.org/10.1145/217391.217453).
    """

    def __init__(self) -> None:
        self._charged: dict[Hashable, float] = {}

    def next(self, keys: Iterable[K]) -> K:
        """The key whose turn it is.

        Keys not named are forgotten: credit is not saved up by staying away. A newcomer begins
        where the least charged one stands.

        Args:
            keys: of all work that is waiting, the longest waiting first; one at least.
        """
        waiting = list(dict.fromkeys(keys))
        known = [self._charged[key] for key in waiting if key in self._charged]
        start = min(known, default=0.0)
        self._charged = {key: self._charged.get(key, start) for key in waiting}
        return min(waiting, key=lambda key: self._charged[key])

    def charge(self, key: Hashable, seconds: float) -> None:
        """Note what a turn of `key` took."""
        if key in self._charged:
            self._charged[key] += seconds


class FairScheduler:
    """Deals time out evenly between clients, and what each one has between the keys of its work.

    So whoever asks for one picture is not behind somebody's twelve, and a client who asks for
    many sizes has no more of the engine than one who asks for one.
    """

    def __init__(self) -> None:
        self._clients = Deficit()
        self._keys: dict[str, Deficit] = {}

    def next(self, waiting: Sequence[tuple[str, K]]) -> tuple[str, K]:
        """The client whose turn it is, and the key of its work that is next.

        Args:
            waiting: client and key of all work, the longest waiting first; one at least.
        """
        whose = self._clients.next(client for client, _ in waiting)
        self._keys = {client: self._keys.get(client, Deficit()) for client, _ in waiting}
        return whose, self._keys[whose].next(key for client, key in waiting if client == whose)

    def charge(self, key: Hashable, seconds: float, parts: Mapping[str, int]) -> None:
        """Note what a call took of each client whose work was in it.

        Args:
            key: of the work.
            seconds: that the call took.
            parts: how much of the call was each client's: rows, or pictures.
        """
        whole = sum(parts.values())
        for client, part in parts.items():
            self._clients.charge(client, seconds * part / whole)
            if client in self._keys:
                self._keys[client].charge(key, seconds * part / whole)
