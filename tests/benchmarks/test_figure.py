"""Figures know which way is better."""

from benchmarks.figure import Figure, at_least, at_most, ratios


def test_a_limit_from_above_is_missed_by_more() -> None:
    assert Figure("time", (1.0, 1.2, 1.1), "×", at_most(1.05)).missed
    assert not Figure("time", (1.0, 1.2, 1.05), "×", at_most(1.05)).missed


def test_a_limit_from_below_is_missed_by_less() -> None:
    assert Figure("throughput", (1.5,), "×", at_least(1.6)).missed
    assert not Figure("throughput", (1.6,), "×", at_least(1.6)).missed


def test_an_aim_alone_fails_nothing() -> None:
    assert not Figure("throughput", (1.0,), "×", aim=at_least(2.5)).missed


def test_the_median_counts_not_the_worst_run() -> None:
    assert not Figure("time", (1.0, 1.0, 9.0), "×", at_most(1.05)).missed


def test_a_row_shows_range_limit_and_aim() -> None:
    row = Figure("pictures a second", (1.0, 3.0, 2.0), "×", at_least(1.6), at_least(2.5)).row()

    assert row == "| pictures a second | 2.00 × | 1.00–3.00 | 3 | ≥ 1.6 × | ≥ 2.5 × |"


def test_a_missed_row_says_so() -> None:
    assert "**missed**" in Figure("time", (2.0,), "×", at_most(1)).row()


def test_ratios_are_taken_turn_by_turn() -> None:
    assert ratios((2.0, 9.0), (1.0, 3.0)) == (2.0, 3.0)


def test_what_could_not_be_measured_says_why_and_misses_nothing() -> None:
    figure = Figure("a program", (), limit=at_most(1), why_not="it is not here")

    assert not figure.missed
    assert figure.row() == "| a program | not run: it is not here | | 0 | | |"
