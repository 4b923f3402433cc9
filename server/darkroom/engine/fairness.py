"""Which client and which work gets the next call, when not all can share one."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


class Deficit:
    """Deficit round robin: shares time evenly between keys, by what each was charged so far.

    The currency is seconds: a key is charged the time of its call, and the key charged least is
    next. An image with slow steps gets one step per second's worth of quick steps, and neither
    starves the other (Shreedhar and Varghese, https://doi.org/10.1145/217391.217453).
    """

    def __init__(self) -> None:
        self._charged: dict[Hashable, float] = {}

    def next(self, keys: Iterable[K]) -> K:
        """The key to run next.

        Keys that are not waiting are forgotten, so that no credit is saved up. A new key starts
        at the lowest charge.

        Args:
            keys: of all waiting work, the longest waiting first; at least one.
        """
        waiting = list(dict.fromkeys(keys))
        known = [self._charged[key] for key in waiting if key in self._charged]
        start = min(known, default=0.0)
        self._charged = {key: self._charged.get(key, start) for key in waiting}
        return min(waiting, key=lambda key: self._charged[key])

    def charge(self, key: Hashable, seconds: float) -> None:
        """Charge the seconds of a call to `key`."""
        if key in self._charged:
            self._charged[key] += seconds


class FairScheduler:
    """Shares time evenly between clients, and each client's time between the keys of its work.

    A client with one image does not wait behind another's twelve, and a client with many sizes
    gets no more time than one with a single size.
    """

    def __init__(self) -> None:
        self._clients = Deficit()
        self._keys: dict[str, Deficit] = {}

    def next(self, waiting: Sequence[tuple[str, K]]) -> tuple[str, K]:
        """The client to serve next, and the key of its work to run.

        Args:
            waiting: client and key of all waiting work, the longest waiting first; at least one.
        """
        chosen = self._clients.next(client for client, _ in waiting)
        self._keys = {client: self._keys.get(client, Deficit()) for client, _ in waiting}
        keys = (key for client, key in waiting if client == chosen)
        return chosen, self._keys[chosen].next(keys)

    def charge(self, key: Hashable, seconds: float, parts: Mapping[str, int]) -> None:
        """Charge the seconds of a call to the clients in it.

        Args:
            parts: each client's part of the call, in rows or images.
        """
        total = sum(parts.values())
        for client, part in parts.items():
            self._clients.charge(client, seconds * part / total)
            if client in self._keys:
                self._keys[client].charge(key, seconds * part / total)
