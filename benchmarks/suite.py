"""A group of figures measured together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.figure import Figure

T = TypeVar("T")


@dataclass(frozen=True)
class Effort:
    """How much is measured. Every suite counts its turns in these.

    Attributes:
        starts: fresh starts of the server.
        pictures: single pictures of each side, in turns.
        rounds: turns of each side under load.
        jobs: jobs in one round.
        large_turns: processes of each side that load the large model.
        large_pictures: pictures made by each of them.
    """

    starts: int
    pictures: int
    rounds: int
    jobs: int
    large_turns: int
    large_pictures: int


FULL = Effort(starts=3, pictures=8, rounds=2, jobs=40, large_turns=2, large_pictures=1)
QUICK = Effort(starts=1, pictures=2, rounds=1, jobs=12, large_turns=1, large_pictures=1)


@dataclass(frozen=True)
class Suite:
    """What `--only` selects, and a section of the page.

    Attributes:
        name: for the command line.
        title: for people.
        how: how each figure is measured, as Markdown.
        measure: does it. No figures mean that this machine cannot.
        by_name: whether it is measured only when `--only` names it.
    """

    name: str
    title: str
    how: str
    measure: Callable[[Effort], list[Figure]]
    by_name: bool = False


def order(contestants: Sequence[T], turn: int) -> Sequence[T]:
    """Who goes first changes from turn to turn: being first must not help anyone."""
    return contestants[::-1] if turn % 2 else contestants
