"""How many workers a fleet runs, and where."""

from dataclasses import dataclass

import pytest

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


@dataclass(frozen=True)
class About:
    """What is known of a worker."""

    models: tuple[str, ...] = ("m",)
    jobs_in_flight: int = 0
    draining: bool = False
    alive: bool = True


IDLE = {"a-0": About(), "b-0": About()}
BOTH = slots({"a": 0, "b": 0})


def test_what_runs_is_adopted() -> None:
    assert changes(BOTH, {"a-0", "b-0"}, IDLE, wanted=2) == ([], [])
    assert changes(BOTH, {"b-0"}, IDLE, wanted=2) == ([Slot("a", 0)], [])
    assert changes(BOTH, {"a-0", "b-0"}, IDLE, wanted=1) == ([], ["b-0"])
    assert changes(BOTH, {"a-0", "b-0"}, IDLE, wanted=0) == ([], ["b-0"])  # a has the model alone


def test_a_worker_that_works_or_has_begun_is_not_stopped() -> None:
    busy = IDLE | {"b-0": About(jobs_in_flight=1)}

    assert changes(BOTH, {"a-0", "b-0"}, busy, wanted=1) == ([], ["a-0"])
    assert changes(BOTH, {"a-0", "b-0"}, {"a-0": About()}, wanted=0) == ([], [])


def test_a_worker_that_drains_is_no_place() -> None:
    drained = IDLE | {"a-0": About(draining=True)}

    assert changes(BOTH, {"a-0", "b-0"}, drained, wanted=1) == ([], [])
    assert changes(BOTH, {"a-0"}, drained, wanted=1) == ([Slot("b", 0)], [])


@pytest.mark.parametrize("other", [About(draining=True), About(alive=False), About(("x",))])
def test_the_last_worker_that_has_a_model_is_not_stopped(other: About) -> None:
    workers = {"a-0": About(("x",)), "b-0": About(("x", "m")), "c-0": other}

    assert changes(BOTH, {"a-0", "b-0"}, workers, wanted=1) == ([], ["a-0"])


def test_a_box_that_is_cut_off_keeps_its_worker_and_takes_no_other_ones_place() -> None:
    here = slots({"a": 0})

    assert changes(here, {"a-0", "away-0"}, IDLE, wanted=1) == ([], [])
    assert changes(here, {"away-0"}, IDLE, wanted=1) == ([Slot("a", 0)], [])
