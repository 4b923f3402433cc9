"""One measured number."""

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Figure:
    """A row of the report.

    Attributes:
        name: what was measured.
        values: every counted run.
        unit: of the values.
        limit: what it is held against, in the same unit; None if nothing.
    """

    name: str
    values: tuple[float, ...]
    unit: str
    limit: float | None = None

    @property
    def median(self) -> float:
        return median(self.values)

    def row(self) -> str:
        """A line of a Markdown table."""
        low, high = min(self.values), max(self.values)
        limit = "" if self.limit is None else f"under {self.limit:g} {self.unit}"
        return (
            f"| {self.name} | {self.median:.2f} {self.unit} | {low:.2f}–{high:.2f} "
            f"| {len(self.values)} | {limit} |"
        )
