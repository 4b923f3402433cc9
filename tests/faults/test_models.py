"""A model's files vanish under a running server."""

import shutil
from pathlib import Path

import pytest

from tests.engine import tiny
from tests.serving import running

pytestmark = pytest.mark.slow


def test_a_model_that_vanished_is_refused_and_its_jobs_fail_with_the_reason(tmp_path: Path) -> None:
    model = tmp_path / "models" / "mine"
    tiny.BUILDERS["sd1"](model)
    with running(tmp_path, process="web") as server:
        job = server.submit(model="mine")
    shutil.rmtree(model)

    with running(tmp_path) as server:
        failed = server.finished(job["id"])
        refused = server.txt2img(model="mine")

        assert failed["status"] == "failed"
        assert failed["error"]["type"] == "urn:darkroom:problem:model"
        assert "mine" in failed["error"]["detail"]
        assert refused.status_code == 422
        assert "mine" in refused.json()["errors"][0]["detail"]
        assert server.txt2img().json()["status"] == "succeeded"


@pytest.mark.slow
def test_a_model_torn_between_acceptance_and_loading_fails_its_job_only(tmp_path: Path) -> None:
    models = tmp_path / "models"
    with running(tmp_path) as server:
        worker = server.child("worker").pid
        tiny.BUILDERS["sd1"](models / "mine")
        weights = next((models / "mine" / "unet").glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-1000])

        answer = server.txt2img(model="mine")

        assert answer.status_code in (422, 500)
        assert "mine" in answer.text
        assert server.txt2img().json()["status"] == "succeeded"
        assert server.child("worker").pid == worker


@pytest.mark.slow
def test_a_loaded_model_whose_files_are_deleted_goes_on_until_it_is_asked_for_anew(
    tmp_path: Path,
) -> None:
    model = tmp_path / "models" / "mine"
    tiny.BUILDERS["sd1"](model)
    with running(tmp_path) as server:
        job = server.submit(model="mine", num_inference_steps=60)
        next(event for event in server.events(job["id"]) if event["event"] == "progress")
        shutil.rmtree(model)

        assert server.finished(job["id"])["status"] == "succeeded"
        assert server.txt2img(model="mine").status_code == 422
