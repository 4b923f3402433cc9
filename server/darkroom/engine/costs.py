"""Duration of a call by its number of rows: measured at loading, and from calls since then."""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from darkroom.engine import errors

ROWS = (1, 2, 4, 8, 16, 32, 64)
GROWING_S, BRIEF_S = 0.5, 0.1  # spent on first calls before no larger one is tried
REPEATING_S = 1.0  # spent on further calls
GOOD_ENOUGH = 0.9  # of the best throughput: more rows would only make each call longer
GUIDED = 2  # rows of one picture with guidance
TRIES = 3  # calls of more rows before it is known whether they are better
SMALLEST_PART = 0.5  # of the time of one row: what a call costs however little it does


@dataclass
class Costs:
    """Measured calls of one model, at its native size or at first at a smaller one.

    Whatever else the machine does only adds to a call, so later calls that are quicker replace what
    was measured. Where more rows were not tried, because the first calls took long, real calls try
    them: a machine that was busy at loading is not taken for a slow one for ever.

    Attributes:
        points: rows and seconds, both ascending, from one row on.
        area: pixels of a row when this was measured.
        most: rows of a call that are tried, at most.
        native: whether that is the native size. If not, the first larger call begins anew.
    """

    points: tuple[tuple[int, float], ...]
    area: int
    most: int = ROWS[-1]
    native: bool = True
    _tries: dict[int, int] = field(default_factory=dict, repr=False, compare=False)

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
        """Rows of this area that nearly reach the best throughput.

        At least a guided picture's, if they fit: its call would be cut in two for nothing.
        """
        best = max(rows / seconds for rows, seconds in self.points)
        enough = (rows for rows, seconds in self.points if rows / seconds >= GOOD_ENOUGH * best)
        fewest = min(GUIDED, self.most) if area <= self.area else 1
        return max(fewest, next(enough) * self.area // area)

    def limit(self, area: int) -> int:
        """Rows of this area that a call should have at most: the knee, or more to try them."""
        knee = self.knee(area)
        tried = self.points[-1][0]
        if area != self.area:
            return knee
        if self._tries.get(tried, TRIES) < TRIES:
            return max(knee, tried)
        return max(knee, min(2 * tried, self.most)) if knee == tried else knee

    def learn(self, rows: int, area: int, seconds: float) -> None:
        """Take a later call into account, of the native size and no more rows than are tried."""
        if area > self.area and not self.native and seconds > 0:
            self.points = ((1, seconds / rows),)
            self.area, self.native, self.most = area, True, ROWS[-1]
            self._tries.clear()
            return
        largest = min(2 * self.points[-1][0], self.most)
        if area != self.area or not self.points[0][0] <= rows <= largest:
            return
        if seconds <= 0:  # less than the clock tells apart
            return
        known = dict(self.points)
        if rows not in known:
            if rows < self.points[-1][0]:
                return
            self._tries[rows] = 0
        if rows in self._tries:
            self._tries[rows] += 1
        if seconds < known.get(rows, math.inf):
            fewer = {less: min(known[less], seconds) for less in known if less < rows}
            self.points = _plausible({**known, **fewer, rows: seconds})


def measure(
    call: Callable[[int], object],
    clock: Callable[[], float],
    area: int,
    *,
    native: bool = True,
    brief: bool = False,
) -> Costs:
    """Time calls of one, two, four … rows, within about two seconds if calls are short.

    The shortest of several calls counts: whatever else the machine does only adds to them.

    Args:
        call: makes a call of so many rows and waits for its end.
        area: pixels of a row.
        native: whether that is the model's native size.
        brief: whether few calls are made, once each. Later calls have to teach the rest.

    Raises:
        torch.OutOfMemoryError: not even one row fits.
    """

    def timed(rows: int) -> float:
        began = clock()
        call(rows)
        return clock() - began

    shortest: dict[int, float] = {}
    most = ROWS[-1]
    for rows in ROWS:
        try:
            shortest[rows] = timed(rows)
        except RuntimeError as error:
            if not shortest or not errors.is_out_of_memory(error):
                raise
            most = max(shortest)
            break
        if sum(shortest.values()) > (BRIEF_S if brief else GROWING_S):
            break
    until = clock() + (0.0 if brief else REPEATING_S)
    while clock() < until:
        for rows in shortest:
            shortest[rows] = min(shortest[rows], timed(rows))
    return Costs(_plausible(shortest), area, most, native)


def _plausible(seconds: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    """Rows and seconds, ascending: more rows take no less time, twice the rows at most twice."""
    points: list[tuple[int, float]] = []
    for rows in sorted(seconds):
        low, low_s = points[-1] if points else (rows, seconds[rows])
        points.append((rows, min(max(seconds[rows], low_s), low_s * rows / low)))
    return tuple(points)
