"""How many workers a fleet runs, and where."""

from darkroom.config import FleetSettings
from darkroom.ops.fleet.plan import Planner, Slot, changes, slots

SETTINGS = FleetSettings(min_workers=1, max_workers=4, jobs_per_worker=4, idle_s=600)


def test_there_is_a_place_on_each_gpu_and_one_on_a_box_without() -> None:
    found = slots({"plain": 0, "two": 2, "one": 1})

    assert [slot.worker for slot in found] == ["one-0", "two-0", "plain-0", "two-1"]
    assert [slot.on_gpu for slot in found] == [True, True, False, True]


def test_as_many_workers_run_as_the_queue_needs_within_the_bounds() -> None:
    planner = Planner(SETTINGS)

    assert planner.wanted(pending=0, places=9, now=0) == 1
    assert planner.wanted(pending=5, places=9, now=1) == 2
    assert planner.wanted(pending=999, places=9, now=2) == 4
    assert planner.wanted(pending=999, places=3, now=3) == 3


def test_workers_stop_only_when_they_were_not_needed_for_a_while() -> None:
    planner = Planner(SETTINGS)
    assert planner.wanted(pending=16, places=9, now=0) == 4

    assert planner.wanted(pending=0, places=9, now=600) == 4
    assert planner.wanted(pending=8, places=9, now=601) == 2
    assert planner.wanted(pending=0, places=9, now=1202) == 1


def test_what_runs_is_adopted() -> None:
    places = slots({"a": 0, "b": 0})

    assert changes(places, {"a-0", "b-0"}, wanted=2) == ([], [])
    assert changes(places, {"b-0"}, wanted=2) == ([Slot("a", 0)], [])
    assert changes(places, {"a-0", "b-0"}, wanted=1) == ([], ["b-0"])


def test_a_box_that_is_cut_off_keeps_its_worker_and_takes_no_other_ones_place() -> None:
    assert changes(slots({"a": 0}), {"a-0", "away-0"}, wanted=1) == ([], [])
    assert changes(slots({"a": 0}), {"away-0"}, wanted=1) == ([Slot("a", 0)], [])
