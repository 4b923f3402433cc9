"""The disk fails: a clear error, the server goes on."""

from pathlib import Path

import pytest

from tests.serving import running

pytestmark = pytest.mark.slow


def test_a_picture_that_cannot_be_stored_fails_its_job_only(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        worker = server.child("worker").pid
        images = tmp_path / "images"
        images.rename(tmp_path / "away")
        images.write_bytes(b"not a folder")

        answer = server.txt2img(num_images=2)

        assert answer.status_code == 507
        assert answer.json()["type"] == "urn:darkroom:problem:storage"
        images.unlink()
        (tmp_path / "away").rename(images)
        assert server.txt2img().json()["status"] == "succeeded"
        assert server.child("worker").pid == worker


def test_a_nearly_full_disk_accepts_nothing_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path, process="web", DARKROOM_QUEUE__MIN_FREE_BYTES=str(2**60)) as server:
        answer = server.txt2img()

        assert answer.status_code == 507
        assert answer.json()["type"] == "urn:darkroom:problem:disk-full"
        assert server.http.get("/jobs").json()["jobs"] == []


def test_a_source_that_vanished_fails_its_job_with_the_reason(tmp_path: Path, photo: Path) -> None:
    with running(tmp_path, process="web") as server:
        job = server.http.post(
            "/img2img",
            data={"prompt": "a pizza"},
            files={"image": photo.read_bytes()},
            headers={"prefer": "respond-async"},
        ).json()
        source = job["request"]["image"].removeprefix("image:")
        next((tmp_path / "images").rglob(source)).unlink()

    with running(tmp_path) as server:
        failed = server.finished(job["id"])

    assert failed["status"] == "failed"
    assert failed["error"]["type"] == "urn:darkroom:problem:source"
    assert failed["error"]["detail"] == "the file of a source picture is gone"
