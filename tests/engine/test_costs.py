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

    def clock(self) -> float:
        return self.now

    def measure(self) -> dict[int, float]:
        return dict(costs.measure(self.call, self.clock, 256).points)


AREA = 256
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


def test_a_brief_measurement_takes_a_tenth_of_a_second() -> None:
    machine = Machine(QUICK)

    brief = costs.measure(machine.call, machine.clock, AREA, brief=True)

    assert dict(brief.points) == pytest.approx({rows: QUICK[rows] for rows in (1, 2, 4, 8, 16)})
    assert machine.now < 0.12
    rows = run(brief, QUICK)  # pictures' calls teach the rest
    assert rows[-1] == costs.Costs(tuple(QUICK.items()), AREA).knee(AREA)


def test_what_does_not_fit_is_not_measured() -> None:
    assert max(Machine(QUICK, room=4).measure()) == 4


def test_a_model_of_which_not_one_row_fits_is_told() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Machine(QUICK, room=0).measure()


def run(measured: costs.Costs, machine: dict[int, float], calls: int = 50) -> list[int]:
    """Rows of calls where there is enough to do, on a machine that takes so long for them."""
    rows = []
    for _ in range(calls):
        rows.append(measured.limit(AREA))
        measured.learn(rows[-1], AREA, machine[rows[-1]])
    return rows


def test_a_machine_that_was_busy_at_loading_is_measured_by_later_calls() -> None:
    machine = Machine({1: 1.54})
    busy = costs.measure(machine.call, machine.clock, AREA)
    assert dict(busy.points) == {1: 1.54}

    rows = run(busy, QUICK)

    assert rows[:10] == [2, 2, 2, 4, 4, 4, 8, 8, 8, 16]
    assert rows[-1] == 8 == costs.Costs(tuple(QUICK.items()), AREA).knee(AREA)
    assert busy.seconds(1, AREA) <= QUICK[2]


def test_more_rows_are_tried_where_they_bring_nothing_but_not_for_long() -> None:
    linear = {rows: float(rows) for rows in QUICK}
    slow = costs.Costs(((1, 1.0), (2, 2.0)), AREA)

    assert run(slow, linear) == [4] * costs.TRIES + [2] * (50 - costs.TRIES)


def test_a_guided_picture_is_never_cut_in_two_where_it_fits() -> None:
    linear = {rows: float(rows) for rows in QUICK}

    rows = run(costs.Costs(((1, 1.0),), AREA), linear)
    assert rows[0] == rows[-1] == min(rows) == 2
    assert costs.Costs(((1, 1.0),), AREA, most=1).limit(AREA) == 1  # two do not fit
    assert costs.Costs(((1, 1.0),), AREA).limit(4 * AREA) == 1


def test_calls_that_are_disturbed_change_nothing() -> None:
    measured = costs.Costs(tuple(QUICK.items()), AREA)

    run(measured, {rows: 10 * seconds for rows, seconds in QUICK.items()})

    assert dict(measured.points) == QUICK


def test_calls_that_are_quicker_than_measured_replace_it() -> None:
    measured = costs.Costs(((1, 1.0), (2, 2.0), (4, 4.0)), AREA)

    measured.learn(2, AREA, 0.012)

    assert dict(measured.points) == pytest.approx({1: 0.012, 2: 0.012, 4: 0.024})


def test_what_did_not_fit_is_not_tried_again() -> None:
    small = Machine({1: 0.01, 2: 0.01, 4: 0.01}, room=4)
    measured = costs.measure(small.call, small.clock, AREA)

    assert set(run(measured, QUICK | {4: 0.01})) == {4}


def test_calls_of_other_sizes_say_nothing() -> None:
    measured = costs.Costs(((1, 1.0),), AREA)

    measured.learn(2, 4 * AREA, 0.1)

    assert dict(measured.points) == {1: 1.0}
    assert measured.limit(4 * AREA) == 1


def test_a_call_that_took_no_time_teaches_nothing() -> None:
    measured = costs.Costs(((1, 1.0),), AREA)

    measured.learn(1, AREA, 0.0)

    assert measured.seconds(1, AREA) == 1.0


def test_what_was_measured_at_a_small_size_begins_anew_with_the_first_larger_call() -> None:
    measured = costs.Costs(((1, 0.01), (2, 0.02)), AREA, most=2, native=False)
    assert measured.seconds(1, 16 * AREA) == pytest.approx(0.16)

    measured.learn(2, 16 * AREA, 0.8)
    measured.learn(1, 64 * AREA, 90.0)

    assert measured.seconds(1, 16 * AREA) == 0.4
    assert measured.limit(16 * AREA) == 2  # more rows are tried
