"""Time is dealt out evenly between those who cannot share calls."""

from collections import Counter

from darkroom.engine.scheduler import Deficit, FairScheduler


def test_a_big_picture_and_small_ones_get_the_same_time() -> None:
    turns, seconds = Deficit(), {"big": 1.0, "small": 0.1}
    spent: Counter[str] = Counter()

    for _ in range(110):
        key = turns.next(["big", "small"])
        turns.charge(key, seconds[key])
        spent[key] += round(10 * seconds[key])

    assert abs(spent["big"] - spent["small"]) <= 10


def test_a_newcomer_goes_next_but_has_no_credit() -> None:
    turns = Deficit()
    for _ in range(100):
        turns.charge(turns.next(["old"]), 1.0)

    served = []
    for _ in range(4):
        served.append(turns.next(["old", "new"]))
        turns.charge(served[-1], 1.0)

    assert Counter(served) == {"old": 2, "new": 2}


def test_staying_away_earns_nothing() -> None:
    turns = Deficit()
    turns.next(["a", "b"])
    for _ in range(100):
        turns.charge(turns.next(["a"]), 1.0)

    served = []
    for _ in range(4):
        served.append(turns.next(["a", "b"]))
        turns.charge(served[-1], 1.0)

    assert Counter(served) == {"a": 2, "b": 2}


def test_clients_get_the_same_time_however_many_keys_they_have() -> None:
    rota = FairScheduler()
    spent: Counter[str] = Counter()

    for _ in range(120):
        client, key = rota.next([("a", "128"), ("a", "256"), ("a", "512"), ("b", "64")])
        rota.charge(key, 1.0, {client: 1})
        spent[client] += 1
        spent[key] += 1

    assert spent == {"a": 60, "b": 60, "128": 20, "256": 20, "512": 20, "64": 60}


def test_a_shared_call_is_paid_for_by_parts() -> None:
    """Who has one of four rows in every call is charged a quarter, and so goes next."""
    rota = FairScheduler()
    for _ in range(3):
        rota.next([("a", "key"), ("b", "key")])
        rota.charge("key", 1.0, {"a": 3, "b": 1})

    assert rota.next([("a", "key"), ("b", "key")])[0] == "b"
