"""Chooses the next UNet call: whose turn it is, and which samples share the call."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from darkroom.engine.sample import Sample

PATIENCE = 8  # calls without a sample that double its weight
K = TypeVar("K", bound=Hashable)


class Deficit:
    """Deficit round robin: shares time evenly between keys, by the seconds charged to each.

    The key charged least is next. An image with slow steps gets one step for a second's worth of
    quick steps, and neither starves (Shreedhar and Varghese,
    https://doi.org/10.1145/217391.217453).
    """

    def __init__(self) -> None:
        self._charged: dict[Hashable, float] = {}

    def next(self, keys: Iterable[K]) -> K:
        """The key to run next, of all that wait, the longest waiting first; at least one.

        Other keys are forgotten, so that no credit is saved up. A new key starts at the lowest
        charge.
        """
        waiting = list(dict.fromkeys(keys))
        start = min((self._charged[key] for key in waiting if key in self._charged), default=0.0)
        self._charged = {key: self._charged.get(key, start) for key in waiting}
        return min(waiting, key=lambda key: self._charged[key])

    def charge(self, key: Hashable, seconds: float) -> None:
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
        """The client to serve next and the key of its work to run, of all that waits.

        The longest waiting comes first; at least one waits.
        """
        chosen = self._clients.next(client for client, _ in waiting)
        self._keys = {client: self._keys.get(client, Deficit()) for client, _ in waiting}
        return chosen, self._keys[chosen].next(key for client, key in waiting if client == chosen)

    def charge(self, key: Hashable, seconds: float, parts: Mapping[str, int]) -> None:
        """Charge a call of that key to its clients, by each one's rows or images in it."""
        total = sum(parts.values())
        for client, part in parts.items():
            self._clients.charge(client, seconds * part / total)
            if client in self._keys:
                self._keys[client].charge(key, seconds * part / total)


@dataclass(frozen=True)
class Candidate:
    """A sample that could be in the next call."""

    sample: Sample
    work: int  # steps of its job, over all its images
    leads: bool = True  # it belongs to the client that is served next

    @property
    def weight(self) -> float:
        """The value of one step of this sample.

        1/√work prefers short jobs without ignoring long ones; skipped calls raise the weight, so
        that every sample is served in the end.
        """
        return (1 + self.sample.skipped / PATIENCE) / math.sqrt(self.work)


def choose(
    candidates: Sequence[Candidate], seconds: Callable[[int], float], max_rows: int
) -> list[Sample]:
    """The samples of the next call, best first: those with the highest weight per second.

    Samples of the client that is served next come first; others fill the rest. One more sample
    makes a call longer for all in it, but by less than a call of its own. Many similar jobs are
    therefore batched up to the knee, and a short job among long ones takes about as long as when
    it has the engine to itself. Increments `skipped` of the samples left out.

    Args:
        candidates: of one key; at least one.
        seconds: the duration of a call of that many rows.
        max_rows: of one call; the first sample may have more.
    """
    waiting = sorted(
        candidates, key=lambda c: (not c.leads, -c.weight / len(c.sample.rows), c.sample.index)
    )
    rows, weight, best, best_rate = 0, 0.0, 1, 0.0
    for count, candidate in enumerate(waiting, 1):
        rows += len(candidate.sample.rows)
        if count > 1 and rows > max_rows:
            break
        weight += candidate.weight
        rate = weight / seconds(rows)
        if rate >= best_rate:
            best, best_rate = count, rate
    for candidate in waiting[best:]:
        candidate.sample.skipped += 1
    return [candidate.sample for candidate in waiting[:best]]
