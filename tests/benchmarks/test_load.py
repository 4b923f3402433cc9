"""Both servers get the same jobs at the same moments."""

import pytest

from benchmarks import load
from darkroom.requests import MODEL_TASKS, REQUESTS, Task


def test_jobs_come_from_their_seed() -> None:
    assert load.mixed(20, seed=3) == load.mixed(20, seed=3)
    assert load.mixed(20, seed=3) != load.mixed(20, seed=4)


def test_the_mix_holds_every_kind_of_job() -> None:
    jobs = load.mixed(200, seed=0)

    assert {job.task for job in jobs} == {task.value for task in MODEL_TASKS}
    assert {job.body["num_inference_steps"] for job in jobs} == set(load.STEPS)
    assert {job.body["scheduler"] for job in jobs} == set(load.SCHEDULERS)
    assert {job.body["guidance_scale"] <= 1 for job in jobs} == {True, False}


def test_every_job_of_the_mix_is_a_valid_request() -> None:
    for job in load.mixed(50, seed=0):
        REQUESTS[Task(job.task)].model_validate(job.body)


def test_arrivals_are_seeded_ascending_and_of_the_asked_rate() -> None:
    moments = load.poisson(2000, rate_per_s=4.0, seed=5)

    assert moments == load.poisson(2000, rate_per_s=4.0, seed=5)
    assert list(moments) == sorted(moments)
    assert len(moments) / moments[-1] == pytest.approx(4.0, rel=0.1)
