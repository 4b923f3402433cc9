"""The comparison is fair: the baseline makes the same pictures as the server."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from benchmarks import baseline, load
from benchmarks.load import Job
from tests.effort import sampled
from tests.serving import RunningServer


@pytest.fixture(scope="module")
def baseline_client() -> Iterator[FlaskClient]:
    with baseline.create_app(device="cpu").test_client() as client:
        yield client


def one_of_each_task() -> list[Job]:
    jobs = load.mixed(40, seed=1)
    return [next(job for job in jobs if job.task == task) for task in sorted(set(load.TASKS))]


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.int16)  # (H, W, 3)


@pytest.mark.parametrize(
    "job", sampled([load.txt2img(steps=4), *one_of_each_task()]), ids=lambda j: j.task
)
def test_the_baseline_answers_with_the_servers_picture(
    server: RunningServer, baseline_client: FlaskClient, job: Job
) -> None:
    ours = load.develop(server.http, job)
    theirs = baseline_client.post(f"/{job.task}", json=job.body)

    assert theirs.status_code == 200
    assert np.abs(pixels(ours) - pixels(theirs.data)).max() <= 1


@pytest.mark.parametrize("scheduler", sampled(load.SCHEDULERS))
def test_every_scheduler_of_the_mix_is_the_servers(
    server: RunningServer, baseline_client: FlaskClient, scheduler: str
) -> None:
    job = load.txt2img(steps=3)
    body = {**job.body, "scheduler": scheduler}

    ours = load.develop(server.http, Job(job.task, body))
    theirs = baseline_client.post("/txt2img", json=body)

    assert np.abs(pixels(ours) - pixels(theirs.data)).max() <= 1


def test_an_answer_that_is_no_picture_fails_the_run(server: RunningServer) -> None:
    with pytest.raises(RuntimeError, match="answered 422"):
        load.develop(server.http, Job("txt2img", {"prompt": "a fox", "num_inference_steps": 0}))
