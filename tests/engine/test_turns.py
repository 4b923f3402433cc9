"""Time is dealt out evenly between those who cannot share calls."""

from collections import Counter

from darkroom.engine.turns import Turns


def test_a_big_picture_and_small_ones_get_the_same_time() -> None:
    turns, seconds = Turns(), {"big": 1.0, "small": 0.1}
    spent: Counter[str] = Counter()

    for _ in range(110):
        key = turns.next(["big", "small"])
        turns.charge(key, seconds[key])
        spent[key] += round(10 * seconds[key])

    assert abs(spent["big"] - spent["small"]) <= 10


def test_a_newcomer_goes_next_but_has_no_credit() -> None:
    turns = Turns()
    for _ in range(100):
        turns.charge(turns.next(["old"]), 1.0)

    served = []
    for _ in range(4):
        served.append(turns.next(["old", "new"]))
        turns.charge(served[-1], 1.0)

    assert Counter(served) == {"old": 2, "new": 2}


def test_staying_away_earns_nothing() -> None:
    turns = Turns()
    turns.next(["a", "b"])
    for _ in range(100):
        turns.charge(turns.next(["a"]), 1.0)

    served = []
    for _ in range(4):
        served.append(turns.next(["a", "b"]))
        turns.charge(served[-1], 1.0)

    assert Counter(served) == {"a": 2, "b": 2}
