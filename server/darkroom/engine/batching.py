"""Chooses the samples that share the next UNet call."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from darkroom.engine.sample import Sample

PATIENCE = 8  # calls gone by without a sample that double its weight


@dataclass(frozen=True)
class Candidate:
    """A sample that could be in the next call.

    Attributes:
        sample: not yet denoised.
        work: steps of its job, over all its images.
        leads: it belongs to the client that is served next.
    """

    sample: Sample
    work: int
    leads: bool = True

    @property
    def weight(self) -> float:
        """The value of one step of this sample.

        1/√work prefers short jobs without ignoring long ones; the number of skipped calls raises
        the weight, so that every sample is served in the end.
        """
        return (1 + self.sample.skipped / PATIENCE) / math.sqrt(self.work)


def choose(
    candidates: Sequence[Candidate], seconds: Callable[[int], float], max_rows: int
) -> list[Sample]:
    """The samples of the next call, chosen for the highest weight per second.

    Samples of the client that is served next come first; others fill the rest. One more sample
    makes a call longer for all in it, but by less than a call of its own. Many similar jobs are
    therefore batched up to the knee, and a short job among long ones takes about as long as when
    it has the engine to itself.

    Args:
        candidates: of one key; at least one.
        seconds: the duration of a call of that many rows.
        max_rows: of one call; the first sample is taken even if it has more.

    Returns:
        The chosen samples, best first. Increments `skipped` of the others.
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
