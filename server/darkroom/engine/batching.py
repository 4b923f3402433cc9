"""Which samples share the next UNet call."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from darkroom.engine.sample import Sample

PATIENCE = 8  # calls gone by without a sample that double its weight


@dataclass(frozen=True)
class Candidate:
    """A sample that may take part.

    Attributes:
        sample: not yet denoised.
        work: steps of its whole job, over all its images.
        leads: whether it is the turn of whoever asked for it.
    """

    sample: Sample
    work: int
    leads: bool = True

    @property
    def weight(self) -> float:
        """What a step of it is worth.

        By 1/√work a short job goes before a long one when both cannot have everything, and the
        long one still counts for something; by its patience every sample's turn comes.
        """
        return (1 + self.sample.skipped / PATIENCE) / math.sqrt(self.work)


def choose(
    candidates: Sequence[Candidate], seconds: Callable[[int], float], max_rows: int
) -> list[Sample]:
    """Pick the samples that share a call, so that the most worth is done a second.

    Those whose turn it is come first; the others fill up what is left. One more sample makes a
    call longer for all in it, but less than it would take alone. Many like jobs therefore go
    together up to the knee, while a short job that arrives among long ones goes through nearly as
    if alone.

    Args:
        candidates: of one key; one at least.
        seconds: how long a call of so many rows takes.
        max_rows: in one call; the first sample goes in even if it is over.

    Returns:
        The samples, in the order of their choice; the skipped ones have been told so.
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
