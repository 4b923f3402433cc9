"""Measuring what UNet calls cost, on a machine that takes as long as we say."""

import pytest
import torch

from darkroom.engine import costs


@pytest.fixture(autouse=True, scope="module")
def _short_measurements() -> None:
    """None here: measuring is what is tested."""


class Machine:
    """Calls take time on its clock.

    Args:
        seconds: of a call by its rows.
        room: rows that fit in memory.
        hiccup: one call, by its number, takes ten times as long.
    """

    def __init__(self, seconds: dict[int, float], room: int = 64, hiccup: int = -1) -> None:
        self.now = 0.0
        self.calls = 0
        self._seconds, self._room, self._hiccup = seconds, room, hiccup

    def call(self, rows: int) -> None:
        if rows > self._room:
            raise torch.OutOfMemoryError
        self.now += self._seconds[rows] * (10 if self.calls == self._hiccup else 1)
        self.calls += 1

    def measure(self) -> dict[int, float]:
        return dict(costs.measure(self.call, lambda: self.now, 256).points)


QUICK = {1: 0.010, 2: 0.012, 4: 0.016, 8: 0.024, 16: 0.046, 32: 0.090, 64: 0.180}


def test_all_rows_are_measured_where_calls_are_short() -> None:
    assert Machine(QUICK).measure() == pytest.approx(QUICK)


@pytest.mark.parametrize("hiccup", range(9))
def test_one_slow_call_does_not_show(hiccup: int) -> None:
    assert Machine(QUICK, hiccup=hiccup).measure() == pytest.approx(
        {rows: QUICK[rows] for rows in Machine(QUICK, hiccup=hiccup).measure()}
    )


def test_long_calls_are_not_doubled_for_long() -> None:
    slow = Machine({rows: float(rows) for rows in QUICK})

    assert slow.measure() == {1: 1.0}
    assert slow.now <= 3


def test_what_does_not_fit_is_not_measured() -> None:
    assert max(Machine(QUICK, room=4).measure()) == 4


def test_a_model_of_which_not_one_row_fits_is_told() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Machine(QUICK, room=0).measure()
