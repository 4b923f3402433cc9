"""Measured duration of a UNet call by its number of rows."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import torch

ROWS = (1, 2, 4, 8, 16, 32, 64)
GROWING_S = 0.5  # spent on first calls before no larger one is tried
REPEATING_S = 1.0  # spent on further calls
GOOD_ENOUGH = 0.9  # of the best throughput: more rows would only make each call longer
SMALLEST_PART = 0.5  # of the time of one row: what a call costs however little it does


@dataclass(frozen=True)
class Costs:
    """Measured calls of one model at its native size."""

    points: tuple[tuple[int, float], ...]  # rows and seconds, both ascending, from one row on
    area: int  # latent pixels of a row when this was measured

    def seconds(self, rows: int, area: int) -> float:
        """Expected time of a call of rows of that area in latent pixels.

        Linear between the points, proportional beyond them. Four times the pixels cost about as
        much as four times the rows.
        """
        wanted = rows * area / self.area
        position = bisect_left(self.points, (wanted, 0.0))
        if position == 0:
            return self.points[0][1] * max(SMALLEST_PART, wanted)
        low, low_s = self.points[position - 1]
        if position == len(self.points):
            return low_s * wanted / low
        high, high_s = self.points[position]
        return low_s + (high_s - low_s) * (wanted - low) / (high - low)

    def knee(self, area: int) -> int:
        """Rows of this area that nearly reach the best throughput; at least one."""
        best = max(rows / seconds for rows, seconds in self.points)
        enough = (rows for rows, seconds in self.points if rows / seconds >= GOOD_ENOUGH * best)
        return max(1, next(enough) * self.area // area)


def measure(call: Callable[[int], object], clock: Callable[[], float], area: int) -> Costs:
    """Time calls of one, two, four … rows, within about two seconds if calls are short.

    The shortest of several calls counts: whatever else the machine does only adds to them. More
    rows take no less time, and twice the rows at most twice: what differs is noise.

    Args:
        call: makes a call of so many rows and waits for its end.

    Raises:
        torch.OutOfMemoryError: not even one row fits.
    """

    def timed(rows: int) -> float:
        began = clock()
        call(rows)
        return clock() - began

    shortest: dict[int, float] = {}
    for rows in ROWS:
        try:
            shortest[rows] = timed(rows)
        except torch.OutOfMemoryError:
            if not shortest:
                raise
            break
        if sum(shortest.values()) > GROWING_S:
            break
    until = clock() + REPEATING_S
    while clock() < until:
        for rows in shortest:
            shortest[rows] = min(shortest[rows], timed(rows))
    points: list[tuple[int, float]] = []
    for rows, seconds in shortest.items():
        low, low_s = points[-1] if points else (rows, seconds)
        points.append((rows, min(max(seconds, low_s), low_s * rows / low)))
    return Costs(tuple(points), area)
