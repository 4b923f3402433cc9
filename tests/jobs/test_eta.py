"""Estimates come from measurements."""

from typing import Any

import pytest

from darkroom.engine.base import ImageReady, Previewed, Started, Stepped
from darkroom.queue.estimate import (
    Estimator,
    Kind,
    Speed,
    Work,
    power_of_two,
)
from darkroom.queue.resubmissions import returns
from darkroom.queue.running_job import Running, share_out
from darkroom.requests import Task
from darkroom.storage.records import Claim
from tests.engine.conftest import request
from tests.jobs.scripted import PICTURE

SIZE = 128 * 128
ALONE = {Kind("tintype", SIZE, 1): Speed(step_seconds=0.1, other_seconds=0.2)}
# A GPU on which a step of four images takes 0.16 s, hardly longer than one of one image.
SHARED = ALONE | {Kind("tintype", SIZE, 4): Speed(step_seconds=0.04, other_seconds=0.2)}


def work(step: int = 0, client: str = "a", isolated: bool = False, **fields: Any) -> Work:
    """A job of ten steps an image, unless it is told otherwise."""
    asked = request(**{"num_inference_steps": 10, **fields}).workload
    return Work(client, asked.model, asked.pixels, asked.images, step, asked.steps, isolated)


def seconds(
    *queue: Work, speeds: dict[Kind, Speed] = ALONE, together: int = 1
) -> list[float | None]:
    return Estimator(speeds, together).seconds(queue)


def test_nothing_measured_nothing_promised() -> None:
    assert seconds(work(), speeds={}) == [None]


def test_who_waits_behind_an_unknown_model_is_promised_nothing() -> None:
    ends = seconds(work(), work(model="other"), work())

    assert ends == [pytest.approx(1.2), None, None]


def test_steps_and_images_count() -> None:
    assert seconds(work(num_images=2)) == [pytest.approx(20 * 0.1 + 2 * 0.2)]
    assert seconds(work(15, num_images=2)) == [pytest.approx(5 * 0.1 + 2 * 0.2)]


def test_a_size_never_measured_is_scaled_from_the_nearest() -> None:
    assert seconds(work(width=256, height=128)) == [pytest.approx(2 * (10 * 0.1 + 0.2))]


def test_strength_shortens_a_job() -> None:
    asked = request(Task.IMG2IMG, strength=0.5, num_inference_steps=20)

    assert asked.workload.steps == 10


def test_jobs_that_take_turns_wait_for_each_other() -> None:
    assert seconds(work(), work()) == [pytest.approx(1.2), pytest.approx(2.4)]


def test_jobs_in_flight_pay_for_each_other() -> None:
    """Where nothing is gained by sharing, two jobs at once end when the second would anyway."""
    assert seconds(work(), work(), together=2) == [pytest.approx(2.4)] * 2


def test_a_short_job_in_flight_goes_before_the_long_one() -> None:
    short, long = seconds(work(num_inference_steps=2), work(num_inference_steps=8), together=2)

    assert short == pytest.approx(0.4 * 1.5)  # by 1/√steps it has two thirds of the engine's time
    assert long == pytest.approx(0.4 + 1.0)


def test_who_waits_comes_in_when_a_place_is_free() -> None:
    ends = seconds(work(5), work(), work(), together=2)

    first = 2 * 0.7  # half done: 0.7 s left of its own
    second = first + 2 * 0.5  # had 0.5 s left when the third joined
    assert ends == [pytest.approx(first), pytest.approx(second), pytest.approx(0.7 + 1.2 + 1.2)]


def test_sharing_the_engine_is_quicker_than_taking_turns() -> None:
    ends = seconds(*[work()] * 4, speeds=SHARED, together=4)

    assert ends == [pytest.approx(10 * 0.16 + 4 * 0.2)] * 4


def test_the_company_nearest_to_one_measured_counts() -> None:
    (three,) = seconds(work(num_images=3), speeds=SHARED)

    assert three == pytest.approx(30 * 0.04 + 3 * 0.2)


def test_a_long_queue_is_foreseen_to_its_end() -> None:
    ends = seconds(*[work()] * 1000, speeds=SHARED, together=4)

    assert ends[-1] == pytest.approx(250 * (10 * 0.16 + 4 * 0.2))


def test_nobody_has_more_in_flight_than_one_client_may() -> None:
    estimator = Estimator(ALONE, 3, per_client=2)

    ends = estimator.seconds([work(), work(), work(), work(client="b")])

    assert ends[:2] == [pytest.approx(3 * 1.2)] * 2  # the fourth is in flight with them
    assert ends[3] == pytest.approx(3 * 1.2)
    assert ends[2] == pytest.approx(4 * 1.2)


def test_a_job_apart_waits_for_the_others_and_has_no_company() -> None:
    ends = seconds(work(), work(), work(isolated=True), work(), together=4)

    assert ends == [pytest.approx(2.4), pytest.approx(2.4), pytest.approx(3.6), pytest.approx(4.8)]


def test_who_comes_again_and_again_is_expected_again() -> None:
    """Somebody's jobs have been following each other: the newcomer will have company to its end."""
    queue = [work(5), work()]

    assert Estimator(ALONE, 4).seconds(queue)[1] == pytest.approx(0.7 + 1.2)
    assert Estimator(ALONE, 4, returning=1.0).seconds(queue)[1] == pytest.approx(2 * 1.2)


def test_who_is_expected_again_waits_behind_those_who_wait() -> None:
    ends = Estimator(ALONE, 1, returning=1.0).seconds([work(), work(), work()])

    assert ends == [pytest.approx(1.2), pytest.approx(2.4), pytest.approx(3.6)]


def test_ends_come_in_order_and_are_foreseen_only_as_far_as_asked() -> None:
    ends = Estimator(ALONE, 1).ends([work(), work()])

    assert next(ends) == (0, pytest.approx(1.2))
    assert next(ends) == (1, pytest.approx(2.4))
    assert next(ends, None) is None


@pytest.mark.parametrize(
    ("spans", "share"),
    [
        ([], 0.0),
        ([(0.0, None)], 0.0),
        ([(0.0, 4.0), (4.1, 8.0), (8.1, None)], 1.0),  # one client, one after the other
        ([(0.0, 4.0), (9.0, 13.0), (18.0, None)], 0.0),  # someone who looks at each picture
        ([(0.0, 4.0), (0.0, 5.0), (4.1, 11.0)], 0.5),  # two, of whom one has gone
        ([(0.0, 4.0), (0.0, 8.0), (0.0, 9.0)], 0.0),  # a pile of jobs
        ([(0.0, 0.1), (0.9, 1.0)], 1.0),  # short jobs
    ],
)
def test_whether_people_come_again_is_seen_from_the_latest_jobs(
    spans: list[tuple[float, float | None]], share: float
) -> None:
    now = max((end or began for began, end in spans), default=0.0)

    assert returns(spans, now).share == share


def test_who_has_just_gone_is_expected_the_less_the_longer_it_is_ago() -> None:
    spans: list[tuple[float, float | None]] = [(0.0, 4.0), (4.0, 8.0)]

    assert returns(spans, now=8.0).due == ((1, 1.0),)
    assert returns(spans, now=11.0).due == ((1, 0.25),)
    assert returns(spans, now=13.0).due == ()
    assert returns([*spans, (8.1, None)], now=8.1).due == ()  # there they are


def test_who_is_due_counts_as_company() -> None:
    """Four whose jobs ended together come again together: the first one back is not alone."""
    due = [(work(client="b"), 1.0), (work(client="c"), 0.5), (work(model="other"), 1.0)]

    assert Estimator(ALONE, 4, due=due).seconds([work()]) == [pytest.approx(2.5 * 1.2)]


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
