"""Whether people come again at once when their job has ended."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

AT_ONCE_S = 1.0  # who asks again within this time asks again at once, however short the job was


@dataclass(frozen=True)
class Resubmissions:
    """Whether those whose job ended come again at once: scripts do, and people at a button.

    At once is within the time that the job took: who looks at a picture before asking for the next
    one is not waited for.

    Attributes:
        share: how many of them did, 0 to 1.
        due: those who may still do so, by index, and how certainly: less with every moment.
    """

    share: float
    due: tuple[tuple[int, float], ...]


def returns(spans: Sequence[tuple[float, float | None]], now: float) -> Resubmissions:
    """What the latest jobs tell; each new one is counted for one that had ended.

    Args:
        spans: when each job was accepted, and ended if it did.
        now: on the same clock.
    """
    arrivals = deque(sorted(began for began, _ in spans))
    ends = sorted(
        (end, max(end - began, AT_ONCE_S), index)
        for index, (began, end) in enumerate(spans)
        if end is not None
    )
    came = gone = 0
    left: list[tuple[int, float]] = []
    for end, patience, index in ends:
        while arrivals and arrivals[0] < end:
            arrivals.popleft()
        if arrivals and arrivals[0] <= end + patience:
            arrivals.popleft()
            came += 1
        elif end + patience < now:
            gone += 1
        else:
            left.append((index, 1 - (now - end) / patience))
    share = came / (came + gone) if came else 0.0
    return Resubmissions(share, tuple((index, share * part) for index, part in left))
