"""/jobs/{id}/explain: how a job's pictures were made, through a real server with the demo model."""

import base64
import io
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from darkroom.responses import MAX_EXPLANATION_BYTES, Explanation
from inside.words import area
from tests.effort import amount
from tests.security.doors import assert_refused, client, issue
from tests.serving import RunningServer, running

ASKED = {"prompt": "a fox on a blue background", "num_inference_steps": 12, "seed": 7}


@pytest.fixture(scope="module")
def plain(server: RunningServer) -> dict[str, Any]:
    """A finished job whose pictures are not explained."""
    return server.finished(server.submit(**ASKED, exact=True, num_images=2)["id"])


@pytest.fixture(scope="module")
def job(server: RunningServer) -> dict[str, Any]:
    """The same with pictures that are."""
    return server.finished(server.submit(**ASKED, exact=True, num_images=2, explain=True)["id"])


def explain(server: RunningServer, job: dict[str, Any], **headers: str) -> httpx2.Response:
    return server.http.get(f"{job['url']}/explain", headers=headers)


def shown(data_uri: str) -> Image.Image:
    head, _, data = data_uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def numbers(maps: dict[str, Any]) -> torch.Tensor:
    """(tokens, h, w), as the page of the API says how to read them."""
    assert maps["dtype"] == "uint8"
    data = np.frombuffer(base64.b64decode(maps["data"]), np.uint8).reshape(maps["shape"])
    return torch.from_numpy(data / 255 * np.array(maps["peaks"])[:, None, None])


def test_the_bytes_of_an_exact_picture_are_the_same(
    plain: dict[str, Any], job: dict[str, Any]
) -> None:
    assert [image["sha256"] for image in job["images"]] == [
        image["sha256"] for image in plain["images"]
    ]
    assert job["request"]["explain"] is True
    assert "explain" not in plain["request"]


def test_each_picture_is_explained(server: RunningServer, job: dict[str, Any]) -> None:
    answer = explain(server, job)

    assert answer.status_code == 200, answer.text
    assert len(answer.content) <= MAX_EXPLANATION_BYTES
    told = Explanation.model_validate_json(answer.content)
    assert told.job_id == job["id"]
    assert [(image.index, image.seed) for image in told.images] == [(0, 7), (1, 8)]
    for image in told.images:
        assert [word.text for word in image.words] == ASKED["prompt"].split()
        assert image.crop is None
        assert [step.index for step in image.steps] == [0, 2, 3, 5, 6, 8, 9, 11]
        assert [step.signal for step in image.steps] == sorted(s.signal for s in image.steps)
        for step in image.steps:
            assert step.signal**2 + step.noise**2 == pytest.approx(1, abs=1e-3)
            pictures = [step.latents, step.predicted_noise, step.guess]
            assert {shown(one).size for one in pictures if one is not None} == {(64, 64)}
            assert all(pictures)
        assert min(image.seconds.model_dump().values()) > 0


def test_one_picture_may_be_asked_for(server: RunningServer, job: dict[str, Any]) -> None:
    every = explain(server, job).json()
    second = server.http.get(f"{job['url']}/explain?index=1").json()

    assert second == {"job_id": job["id"], "images": every["images"][1:]}


def test_over_all_tokens_a_place_looks_at_one_whole(
    server: RunningServer, job: dict[str, Any]
) -> None:
    maps = explain(server, job).json()["images"][0]["maps"]

    for name in ("all_steps", "last_quarter", "carried_back"):
        total = numbers(maps[name]).sum(0)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=0.02)


def test_the_rolled_out_map_of_the_subject_is_where_the_subject_is(
    server: RunningServer, job: dict[str, Any]
) -> None:
    """Where the picture is not of the background's colour, which its corners have."""
    told = explain(server, job).json()["images"][0]
    (fox,) = next(word["tokens"] for word in told["words"] if word["text"] == "fox")
    looked = numbers(told["maps"]["carried_back"])[fox]
    data = server.http.get(job["images"][0]["url"]).content
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)  # (128, 128, 3)
    corner = pixels[:8, :8].mean((0, 1))
    subject = torch.from_numpy((np.linalg.norm(pixels - corner, axis=-1) > 60).astype("float32"))
    covered = torch.nn.functional.adaptive_avg_pool2d(subject[None, None], looked.shape)[0, 0]

    found = area(looked[covered > 0.5], looked[covered <= 0.5])

    assert 0.1 < float(subject.mean()) < 0.9
    assert found >= 0.75


def test_a_finished_explanation_may_be_cached_for_ever(
    server: RunningServer, job: dict[str, Any]
) -> None:
    first = explain(server, job)
    again = explain(server, job, **{"if-none-match": first.headers["etag"]})

    assert "immutable" in first.headers["cache-control"]
    assert "private" in first.headers["cache-control"]
    assert (again.status_code, again.content) == (304, b"")


def test_a_job_that_was_not_asked_says_how_to(server: RunningServer, plain: dict[str, Any]) -> None:
    answer = explain(server, plain)

    assert_refused(answer, 404, "no-explanation")
    assert answer.json()["code"] == "explain_not_asked"
    assert '"explain": true' in answer.json()["detail"]


def test_a_job_that_waits_says_so(idle_server: RunningServer) -> None:
    answer = explain(idle_server, idle_server.submit(explain=True))

    assert_refused(answer, 404, "no-explanation")
    assert answer.json()["code"] == "explain_not_yet"
    assert answer.json()["values"] == {"status": "queued"}


def test_anothers_job_is_as_if_it_were_not_there(
    server: RunningServer, job: dict[str, Any]
) -> None:
    with client(server, issue(server, "Mallory of explain")["token"]) as mallory:
        theirs = mallory.get(f"{job['url']}/explain")
        unknown = mallory.get("/jobs/0123456789abcdef01234567/explain")

    assert_refused(theirs, 404, "not-found")
    assert_refused(unknown, 404, "not-found")


def test_what_is_deleted_is_explained_no_more(server: RunningServer) -> None:
    made = server.finished(server.submit(explain=True, num_images=2)["id"])
    folder = server.data_dir / "images"
    kept = [path.name for path in folder.rglob(f"{made['id']}-*-explain")]

    server.http.delete(made["images"][0]["url"]).raise_for_status()

    assert sorted(kept) == [f"{made['id']}-{index}-explain" for index in (0, 1)]
    assert [path.name for path in folder.rglob(f"{made['id']}-*-explain")] == [
        f"{made['id']}-1-explain"
    ]
    assert [image["index"] for image in explain(server, made).json()["images"]] == [1]
    gone = server.http.get(f"{made['url']}/explain?index=0")
    assert_refused(gone, 404, "no-explanation")
    assert gone.json()["code"] == "explain_gone"


@pytest.mark.parametrize("index", ["-1", "8", "x"])
def test_an_index_that_no_picture_has_is_refused(
    server: RunningServer, job: dict[str, Any], index: str
) -> None:
    answer = server.http.get(f"{job['url']}/explain?index={index}")

    assert_refused(answer, 422, "validation")


def test_the_default_asks_for_the_same_job(server: RunningServer) -> None:
    """With an idempotency key, a request from before the field existed finds its job."""
    key = {"idempotency-key": "explain-default"}
    body = {**ASKED, "num_inference_steps": 1}
    first = server.http.post("/txt2img", json=body, headers=key)
    again = server.http.post("/txt2img", json={**body, "explain": False}, headers=key)
    other = server.http.post("/txt2img", json={**body, "explain": True}, headers=key)

    assert again.json()["id"] == first.json()["id"]
    assert other.status_code == 422


def test_a_part_that_is_repainted_says_which(
    server: RunningServer, photo: Path, mask: Path
) -> None:
    answer = server.http.post(
        "/inpaint",
        data={**ASKED, "num_inference_steps": "3", "padding_mask_crop": "8", "explain": "true"},
        files={"image": photo.read_bytes(), "mask_image": mask.read_bytes()},
        headers={"prefer": "wait"},
    )
    assert answer.status_code == 200, answer.text

    (image,) = explain(server, answer.json()).json()["images"]

    left, top, right, bottom = image["crop"]
    assert 0 <= left < 150 < 300 < right <= 451
    assert 0 <= top <= 75 < 225 <= bottom <= 300


@pytest.mark.slow
def test_many_that_are_asked_at_once_take_no_more_memory_than_few(tmp_path: Path) -> None:
    """Those in flight have recorders, and no others; what is ready is on the disk."""
    many, few = amount(60, 60, 1000), 16  # of which 12 are in flight
    limits = {"DARKROOM_QUEUE__MAX_PENDING_PER_CLIENT": f"{2 * many}"}
    with running(tmp_path, **limits) as server:

        def ask(count: int) -> int:
            """Bytes that worker and web hold when so many jobs have ended."""
            asked = [server.submit(**ASKED, explain=True)["id"] for _ in range(count)]
            jobs = [server.finished(job) for job in asked]
            assert {job["status"] for job in jobs} == {"succeeded"}
            assert all(explain(server, job).status_code == 200 for job in jobs)
            return sum(held(server.child(name)) for name in ("worker", "web"))

        ask(few)  # what is loaded and measured once
        after_few = ask(few)

        assert ask(many) - after_few < 64 * 2**20


def held(process: psutil.Process) -> int:
    return int(process.memory_info().rss)
