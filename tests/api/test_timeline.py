"""/jobs/{id}/timeline: watching a picture develop, and afterwards."""

import io
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image, ImageChops, ImageStat

from tests.serving import RunningServer, running


@pytest.fixture(scope="module")
def job(server: RunningServer) -> dict[str, Any]:
    """A finished job."""
    return server.finished(server.submit(num_inference_steps=12)["id"])


def timeline(
    server: RunningServer, job: dict[str, Any], index: int = 0, **headers: str
) -> httpx2.Response:
    return server.http.get(f"{job['url']}/timeline?index={index}", headers=headers)


def previews(server: RunningServer, job: dict[str, Any]) -> int:
    return sum(1 for event in server.events(job["id"]) if event["event"] == "preview")


def test_a_finished_job_can_be_watched_again(server: RunningServer, job: dict[str, Any]) -> None:
    answer = timeline(server, job)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    with Image.open(io.BytesIO(answer.content)) as film:
        assert film.n_frames == previews(server, job) + 1
    assert_ends_with(server, answer.content, job["images"][0])


def assert_ends_with(server: RunningServer, film: bytes, image: dict[str, Any]) -> None:
    """The last frame of a film shows this picture."""
    with Image.open(io.BytesIO(film)) as frames:
        assert frames.n_frames > 1
        frames.seek(frames.n_frames - 1)
        last = frames.convert("RGB")
    picture = server.http.get(f"{image['url']}?w={last.width}").content
    with Image.open(io.BytesIO(picture)) as small:
        assert small.size == last.size
        difference = ImageChops.difference(small.convert("RGB"), last)
    assert max(ImageStat.Stat(difference).mean) < 8  # of 255: what two compressions leave


def test_a_finished_timeline_may_be_cached_for_ever(
    server: RunningServer, job: dict[str, Any]
) -> None:
    first = timeline(server, job)
    again = timeline(server, job, **{"if-none-match": first.headers["etag"]})

    assert first.headers["etag"].startswith('"')
    assert "immutable" in first.headers["cache-control"]
    assert "private" in first.headers["cache-control"]
    assert timeline(server, job).content == first.content
    assert (again.status_code, again.content) == (304, b"")


def test_head_says_what_get_would_send(server: RunningServer, job: dict[str, Any]) -> None:
    head = server.http.head(f"{job['url']}/timeline")
    body = timeline(server, job)

    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "etag", "cache-control"):
        assert head.headers[name] == body.headers[name]


def test_a_running_job_is_shown_as_far_as_it_is(server: RunningServer) -> None:
    job = server.submit(num_inference_steps=150)
    events = server.events(job["id"])
    next(event for event in events if event["event"] == "preview")

    answer = timeline(server, job)
    server.http.delete(job["url"])
    list(events)

    assert answer.headers["content-type"] == "image/webp"
    assert "no-cache" in answer.headers["cache-control"]
    cancelled = timeline(server, job)
    assert "immutable" in cancelled.headers["cache-control"]


def test_a_job_that_waits_has_nothing_to_show_yet(idle_server: RunningServer) -> None:
    job = idle_server.submit()

    answer = timeline(idle_server, job)

    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:darkroom:problem:no-previews"
    assert answer.json()["detail"] == "no previews yet; the job is queued"
    idle_server.http.delete(job["url"])
    assert timeline(idle_server, job).json()["detail"].endswith("the job has ended: cancelled")


def test_a_job_that_is_not_there_has_no_timeline(server: RunningServer) -> None:
    answer = server.http.get("/jobs/nobody/timeline")

    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:darkroom:problem:not-found"


@pytest.mark.slow
def test_each_picture_of_a_job_has_its_own_film(server: RunningServer) -> None:
    job = server.finished(server.submit(num_images=3, num_inference_steps=12)["id"])

    films = [timeline(server, job, index) for index in range(3)]

    assert [film.status_code for film in films] == [200, 200, 200]
    assert films[0].content == server.http.get(f"{job['url']}/timeline").content
    for film, image in zip(films, job["images"], strict=True):
        assert_ends_with(server, film.content, image)
    assert timeline(server, job, 3).json()["type"] == "urn:darkroom:problem:not-found"
    assert timeline(server, job, 8).status_code == 422


def test_previews_say_whose_and_after_how_many_steps_they_are(server: RunningServer) -> None:
    job = server.finished(server.submit(num_images=2, num_inference_steps=5)["id"])

    previews = [event["data"] for event in server.events(job["id"]) if event["event"] == "preview"]

    assert {preview["index"] for preview in previews} == {0, 1}
    assert all(1 <= preview["step"] <= preview["steps"] == 5 for preview in previews)


def test_what_was_deleted_is_not_shown_small(server: RunningServer) -> None:
    job = server.finished(server.submit(num_images=2)["id"])
    first, second = (image["url"] for image in job["images"])

    server.http.delete(second)

    assert timeline(server, job).status_code == 200
    assert timeline(server, job, 1).json()["type"] == "urn:darkroom:problem:no-previews"

    server.http.delete(first)

    assert timeline(server, job).json()["type"] == "urn:darkroom:problem:no-previews"
    assert "preview" not in [event["event"] for event in server.events(job["id"])]


@pytest.mark.slow
def test_a_lost_file_is_said_to_be_lost(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        job = server.finished(server.submit()["id"])
        next((tmp_path / "images").rglob(job["images"][0]["id"])).unlink()

        assert timeline(server, job).json()["type"] == "urn:darkroom:problem:not-found"
