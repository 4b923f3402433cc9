"""One measured number, and what it is held against."""

from dataclasses import dataclass
from statistics import median
from typing import Literal


@dataclass(frozen=True)
class Bound:
    """A value that a figure may reach but not pass.

    Attributes:
        sense: `≤` where less is better, `≥` where more is.
        value: in the figure's unit.
    """

    sense: Literal["≤", "≥"]
    value: float

    def holds(self, measured: float) -> bool:
        return measured <= self.value if self.sense == "≤" else measured >= self.value

    def __str__(self) -> str:
        return f"{self.sense} {self.value:g}"


def at_most(value: float) -> Bound:
    return Bound("≤", value)


def at_least(value: float) -> Bound:
    return Bound("≥", value)


@dataclass(frozen=True)
class Figure:
    """A row of the report.

    Attributes:
        name: what was measured.
        values: every counted run; none if it could not be measured.
        unit: of the values and bounds.
        limit: missing it fails the run; None if nothing is asked.
        aim: where we want to be; missing it is only shown.
        why_not: why there are no values.
    """

    name: str
    values: tuple[float, ...]
    unit: str = ""
    limit: Bound | None = None
    aim: Bound | None = None
    why_not: str = ""

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def missed(self) -> bool:
        """Whether the median is beyond the limit."""
        if self.limit is None or not self.values:
            return False
        return not self.limit.holds(self.median)

    def row(self) -> str:
        """A line of a Markdown table."""
        if not self.values:
            return f"| {self.name} | not run: {self.why_not} | | 0 | | |"
        low, high = min(self.values), max(self.values)
        limit = "" if self.limit is None else f"{self.limit} {self.unit}"
        aim = "" if self.aim is None else f"{self.aim} {self.unit}"
        return (
            f"| {self.name} | {'**missed** ' if self.missed else ''}{self.median:.2f} {self.unit} "
            f"| {low:.2f}–{high:.2f} | {len(self.values)} | {limit} | {aim} |"
        )


def ratios(over: tuple[float, ...], under: tuple[float, ...]) -> tuple[float, ...]:
    """Turn by turn, `over` ÷ `under`: what disturbed both of a turn cancels out."""
    return tuple(a / b for a, b in zip(over, under, strict=True))
