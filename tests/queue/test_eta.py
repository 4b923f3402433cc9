"""Estimates come from measurements."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.engine.base import ImageReady, Previewed, Started, Stepped
from darkroom.queue.estimate import (
    Estimator,
    Kind,
    Speed,
    Work,
    power_of_two,
)
from darkroom.queue.leases import Leases
from darkroom.queue.running_job import Running, share_out
from darkroom.queue.store import Store
from darkroom.requests import Task
from darkroom.responses import JobStatus
from darkroom.storage.records import Claim
from tests.engine.conftest import request
from tests.queue.conftest import ME, Clock, accept
from tests.queue.scripted import PICTURE

SIZE = 128 * 128
ALONE = {Kind("tintype", SIZE, 1): Speed(step_seconds=0.1, other_seconds=0.2)}
# A GPU on which a step of four images takes 0.16 s, hardly longer than one of one image.
SHARED = ALONE | {Kind("tintype", SIZE, 4): Speed(step_seconds=0.04, other_seconds=0.2)}


def work(step: int = 0, jobs: int = 1, **fields: Any) -> Work:
    """Jobs of ten steps an image, of which each has done some steps."""
    asked = request(**{"num_inference_steps": 10, **fields}).workload
    steps = asked.steps * jobs
    left = steps - step * jobs
    return Work(asked.model, asked.pixels, asked.images * jobs, left, steps, jobs)


def estimator(
    running: Sequence[Work] = (),
    queued: Mapping[str, Sequence[Work]] | None = None,
    *,
    speeds: dict[Kind, Speed] = ALONE,
    slots: int = 1,
    refill: float = 0.0,
) -> Estimator:
    return Estimator(speeds, running, queued or {}, slots, refill)


def alone(job: Work, **how: Any) -> float | None:
    """Seconds until the end of the only job."""
    return estimator(queued={"a": [job]}, **how).queued_end(job, {})


def pile(jobs: int, **how: Any) -> list[float]:
    """Seconds until the end of each of some jobs of one client, the first one first."""
    found = estimator(queued={"a": [work(jobs=jobs)]}, **how)
    ends = [found.queued_end(work(), {"a": ahead}) for ahead in range(jobs)]
    return [end for end in ends if end is not None]


def test_nothing_measured_nothing_promised() -> None:
    assert alone(work(), speeds={}) is None
    assert estimator([work()], speeds={}).running_ends() == [None]


def test_who_waits_behind_an_unknown_model_is_promised_nothing() -> None:
    known, unknown = work(), work(model="other")

    behind = estimator(queued={"a": [known], "b": [unknown]})
    assert behind.queued_end(known, {}) == pytest.approx(1.2)
    assert behind.queued_end(unknown, {"a": 1}) is None
    assert behind.queued_end(known, {"b": 1}) is None
    in_flight = estimator([unknown, known], {"a": [known]}, slots=2)
    assert in_flight.running_ends() == [None, pytest.approx(1.2)]
    assert in_flight.queued_end(known, {}) is None


def test_steps_and_images_count() -> None:
    assert alone(work(num_images=2)) == pytest.approx(20 * 0.1 + 2 * 0.2)
    assert estimator([work(15, num_images=2)]).running_ends() == [pytest.approx(5 * 0.1 + 2 * 0.2)]


def test_a_size_never_measured_is_scaled_from_the_nearest() -> None:
    assert alone(work(width=256, height=128)) == pytest.approx(2 * (10 * 0.1 + 0.2))


def test_strength_shortens_a_job() -> None:
    asked = request(Task.IMG2IMG, strength=0.5, num_inference_steps=20)

    assert asked.workload.steps == 10


def test_jobs_that_take_turns_wait_for_each_other() -> None:
    assert pile(3) == [pytest.approx(n * 1.2) for n in (1, 2, 3)]
    assert estimator([work(5)], {"a": [work()]}).queued_end(work(), {}) == pytest.approx(0.7 + 1.2)


def test_jobs_in_flight_pay_for_each_other() -> None:
    """Where nothing is gained by sharing, two jobs at once end when the second would anyway."""
    assert estimator([work(), work()], slots=2).running_ends() == [pytest.approx(2.4)] * 2
    assert pile(2, slots=2) == [pytest.approx(2.4)] * 2


def test_a_short_job_in_flight_goes_before_the_long_one() -> None:
    jobs = [work(num_inference_steps=2), work(num_inference_steps=8)]

    short, long = estimator(jobs, slots=2).running_ends()

    assert short == pytest.approx(0.4 * 1.5)  # by 1/√steps it has two thirds of the engine's time
    assert long == pytest.approx(0.4 + 1.0)


def test_a_short_job_is_not_held_up_by_a_long_one_beside_it() -> None:
    long, short = work(num_inference_steps=200), work(num_inference_steps=2)

    end = estimator([long], {"a": [short]}, slots=2).queued_end(short, {})

    assert end == pytest.approx(0.4 * 1.1)  # a tenth of the long one's weight


def test_who_waits_comes_in_when_a_place_is_free() -> None:
    running = [work(5), work(0)]

    end = estimator(running, {"a": [work()]}, slots=2).queued_end(work(), {})

    assert end == pytest.approx(0.7 + 1.2 + 1.2)  # all work that there is


def test_sharing_the_engine_is_quicker_than_taking_turns() -> None:
    assert pile(4, speeds=SHARED, slots=4) == [pytest.approx(10 * 0.16 + 4 * 0.2)] * 4


def test_the_images_in_flight_nearest_to_those_measured_count() -> None:
    assert alone(work(num_images=3), speeds=SHARED) == pytest.approx(30 * 0.04 + 3 * 0.2)


def test_a_long_queue_is_foreseen_to_its_end() -> None:
    ends = pile(1000, speeds=SHARED, slots=4)

    assert len(ends) == 1000
    assert ends[-1] == pytest.approx(250 * (10 * 0.16 + 4 * 0.2), rel=0.01)


@given(
    jobs=st.integers(1, 60),
    slots=st.integers(1, 8),
    running=st.integers(0, 8),
    step=st.integers(0, 9),
    refill=st.floats(0, 1),
)
def test_nobody_ends_before_those_like_it_that_go_first(
    jobs: int, slots: int, running: int, step: int, refill: float
) -> None:
    in_flight = [work(step)] * min(running, slots)
    queue = {"a": [work(jobs=jobs)]}
    found = estimator(in_flight, queue, slots=slots, refill=refill)

    ends = [found.queued_end(work(), {"a": ahead}) or 0.0 for ahead in range(jobs)]

    assert all(earlier <= later + 1e-9 for earlier, later in itertools.pairwise(ends))
    total = len(in_flight) * (0.2 + (10 - step) * 0.1) + jobs * 1.2
    assert total - 1e-9 <= ends[-1]  # all the work there is lies before the last one's end
    assert ends[-1] <= total + slots * 1.2 + 1e-9


def test_each_clients_jobs_count_as_far_as_they_go_first() -> None:
    """A newcomer's turn comes after one of somebody's hundred, not after all of them."""
    queue = {"a": [work(jobs=100, num_inference_steps=50)], "b": [work()]}

    end = estimator(queued=queue).queued_end(work(), {"a": 1})

    assert end == pytest.approx(5.2 + 1.2)


def test_in_a_steady_load_the_company_stays() -> None:
    """Those that end are followed by others: the newcomer shares the engine to its end."""
    steady = estimator([work(5)], {"a": [work()]}, slots=2, refill=1.0)
    unknown = estimator([work(5)], {"a": [work()]}, slots=2, refill=0.5)

    assert steady.queued_end(work(), {}) == pytest.approx(2 * 1.2)
    assert unknown.queued_end(work(), {}) == pytest.approx((2.4 + 1.9) / 2)


def test_who_was_there_a_moment_ago_counts_as_company() -> None:
    """Four whose jobs ended together come again together: the first one back is not alone."""
    assert alone(work(), slots=4, refill=1.0) == pytest.approx(4 * 1.2)


def test_jobs_of_a_moment_ago_are_seen_in_the_queue(
    store: Store, worker: Leases, clock: Clock
) -> None:
    worker.heartbeat(ready=True, device="cpu", max_in_flight=4)
    worker.learn_speed(Kind("tintype", SIZE, 1), Speed(1.0, 0.0))
    jobs = [accept(store) for _ in range(3)]
    for _ in jobs:
        worker.claim(busy=True)
    clock.now += 2.0
    for job in jobs:
        worker.finish(job, JobStatus.SUCCEEDED)

    clock.now += 0.5
    at_once = store.job(accept(store), ME)
    clock.now += 10
    later = store.job(accept(store, client="later"), "later")

    assert at_once is not None
    assert later is not None
    assert at_once.eta_seconds == pytest.approx(3 * 6.0)
    assert later.eta_seconds == pytest.approx(2 * 6.0)  # with the one that was accepted before


def test_newer_measurements_count_more_and_more() -> None:
    speed = Speed(1.0, 1.0)
    for _ in range(20):
        speed = speed.blended(Speed(2.0, 3.0))

    assert speed.step_seconds == pytest.approx(2.0, rel=0.01)
    assert speed.other_seconds == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize(
    ("images", "nearest"), [(1, 1), (1.3, 1), (1.5, 2), (2.7, 2), (3, 4), (8, 8), (500, 512)]
)
def test_company_is_counted_in_powers_of_two(images: float, nearest: int) -> None:
    assert power_of_two(images) == nearest


def flight(**images: int) -> dict[str, Running]:
    """Jobs in flight, by name, with so many images each."""
    jobs = {name: request(num_images=count) for name, count in images.items()}
    return {
        name: Running(Claim(name, "somebody", asked, asked.workload, 1))
        for name, asked in jobs.items()
    }


def test_a_tick_is_charged_by_the_steps_made_in_it() -> None:
    jobs = flight(one=1, three=3)

    share_out(0.4, [Stepped("one", 1, 6), Stepped("three", 3, 18), Previewed("one", b"")], jobs)

    assert [job.step_seconds for job in jobs.values()] == [pytest.approx(0.1), pytest.approx(0.3)]
    assert [job.other_seconds for job in jobs.values()] == [0, 0]


def test_what_is_no_step_is_charged_as_one() -> None:
    jobs = flight(one=1, two=1)

    share_out(0.4, [Stepped("one", 1, 6), ImageReady("two", 0, 7, PICTURE)], jobs)

    assert jobs["one"].step_seconds == pytest.approx(0.2)
    assert jobs["two"].other_seconds == pytest.approx(0.2)


def test_who_took_no_part_in_a_tick_pays_nothing() -> None:
    jobs = flight(one=1, two=1)

    share_out(0.4, [Started("one", 6), Stepped("stranger", 1, 6)], jobs)
    share_out(0.4, [], jobs)

    assert jobs["one"].other_seconds == pytest.approx(0.4)
    assert (jobs["two"].step_seconds, jobs["two"].other_seconds) == (0, 0)


def test_a_job_learns_how_fast_it_went_in_what_company() -> None:
    """Recorded: three images of one job and one of another, eight ticks of 0.16 s."""
    jobs = flight(one=1, three=3)
    for tick in range(1, 9):
        share_out(0.16, [Stepped("one", tick, 8), Stepped("three", 3 * tick, 24)], jobs)
        jobs["one"].step, jobs["three"].step = tick, 3 * tick
    share_out(0.2, [ImageReady("one", 0, 7, PICTURE)], jobs)

    learned = [job.measured() for job in jobs.values()]
    assert [kind for kind, _ in filter(None, learned)] == [Kind("tintype", SIZE, 4)] * 2
    speeds = [speed for _, speed in filter(None, learned)]
    assert [speed.step_seconds for speed in speeds] == [pytest.approx(0.04)] * 2
    assert [speed.other_seconds for speed in speeds] == [pytest.approx(0.2), 0]


def test_a_job_without_a_step_teaches_nothing() -> None:
    assert flight(one=1)["one"].measured() is None
