"""Both servers get the same jobs at the same moments; a running server is put under load."""

import asyncio

import pytest

from benchmarks import load, load_tool, streams
from benchmarks.suite import QUICK
from darkroom.requests import MODEL_TASKS, REQUESTS, Task
from tests.serving import RunningServer


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


@pytest.mark.slow
def test_people_and_listeners_get_what_they_came_for(server: RunningServer) -> None:
    result, followed = asyncio.run(
        load_tool.run(
            [server.url, server.url], rate_per_s=2, seconds=1, clients=2, listeners=2, seed=1
        )
    )

    assert result.errors == {}
    assert result.pictures == 2
    assert "2 pictures" in result.lines()[0]
    assert any("p95" in line for line in result.lines())
    assert followed is not None
    assert (followed.problems, followed.wrong) == ((), 0)
    assert followed.events >= 2 * 3  # queued, started, succeeded
    live = [token["name"] for token in server.http.get("/tokens").json()["tokens"]]
    assert not [name for name in live if name.startswith("load ")]


def test_an_error_is_counted_by_its_name(server: RunningServer) -> None:
    async def wrong() -> load_tool.Result:
        async with load_tool.httpx2.AsyncClient(base_url=server.url) as client:
            job = load.Job("txt2img", {"prompt": "a fox", "num_inference_steps": 0})
            return await load_tool.open_loop([client], [job], [0.0])

    assert asyncio.run(wrong()).errors == {"422 validation": 1}


@pytest.mark.slow
def test_streams_over_two_web_processes_drop_nothing() -> None:
    figures = {each.name.rpartition(": ")[2]: each for each in streams.measure(QUICK)}

    assert not [name for name, each in figures.items() if each.missed]
    assert figures["events delivered"].median > 0
