"""POST /txt2img, /img2img, /inpaint: the main job, and every way to wait for it."""

import base64
import io
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from tests.serving import RunningServer


def picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(picture(data).convert("RGB"), dtype=np.int16)


def test_answers_the_finished_job_by_default(server: RunningServer) -> None:
    job = server.txt2img("a red fox").json()

    assert job["status"] == "succeeded"
    assert job["progress"] == {"step": 2, "steps": 2}
    assert job["request"]["prompt"] == "a red fox"
    assert job["request"]["model"] == "tintype"
    assert job["request"]["scheduler"]  # every default is filled in and told
    assert [image["seed"] for image in job["images"]] == [7]
    assert server.http.get(job["images"][0]["url"]).headers["content-type"] == "image/png"


def test_answers_the_picture_to_who_accepts_pictures(server: RunningServer) -> None:
    answer = server.http.post(
        "/txt2img",
        json={"prompt": "a red fox", "num_inference_steps": 2},
        headers={"accept": "image/png"},
    )

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert picture(answer.content).size == (128, 128)
    assert server.http.get(answer.headers["location"]).json()["status"] == "succeeded"


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_the_accept_header_chooses_the_format(server: RunningServer, kind: str) -> None:
    answer = server.http.post(
        "/txt2img",
        json={"prompt": "a fox", "num_inference_steps": 1},
        headers={"accept": f"image/{kind}"},
    )

    assert picture(answer.content).format == kind.upper()


def test_same_request_and_seed_give_the_same_bytes(server: RunningServer) -> None:
    first, second = (
        server.http.get(server.txt2img(seed=7).json()["images"][0]["url"]).content for _ in range(2)
    )
    other = server.http.get(server.txt2img(seed=8).json()["images"][0]["url"]).content

    assert first == second
    assert first != other


def test_image_i_is_made_from_seed_plus_i(server: RunningServer) -> None:
    together = server.txt2img(num_images=3, seed=40).json()["images"]
    alone = server.txt2img(seed=42).json()["images"][0]

    assert [image["seed"] for image in together] == [40, 41, 42]
    difference = pixels(server.http.get(together[2]["url"]).content) - pixels(
        server.http.get(alone["url"]).content
    )
    assert np.abs(difference).max() <= 1


def test_a_seed_is_rolled_and_told_when_left_out(server: RunningServer) -> None:
    body = {"prompt": "a fox", "num_inference_steps": 1}
    seeds = [server.http.post("/txt2img", json=body).json()["request"]["seed"] for _ in range(2)]

    assert seeds[0] != seeds[1]


def test_the_request_of_a_job_makes_it_again(server: RunningServer) -> None:
    body = {"prompt": "a fox", "num_inference_steps": 2}
    job = server.http.post("/txt2img", json=body).json()

    again = server.http.post("/txt2img", json=job["request"]).json()

    assert again["images"][0]["sha256"] == job["images"][0]["sha256"]


def test_a_picture_says_how_it_was_made_and_nothing_else(server: RunningServer) -> None:
    options = {"negative_prompt": "blur", "scheduler": "dpmpp_2m_karras", "guidance_scale": 3.0}
    job = server.txt2img("a fox, (red)", **options).json()
    text = picture(server.http.get(job["images"][0]["url"]).content).text  # type: ignore[attr-defined]

    assert text["parameters"] == (
        "a fox, (red)\nNegative prompt: blur\n"
        "Steps: 2, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 3, Seed: 7, "
        "Size: 128x128, Model: tintype"
    )
    assert json.loads(text["darkroom"]) == {**job["request"], "task": "txt2img", "index": 0}
    assert job["id"] not in text["darkroom"] + text["parameters"]


# --- img2img and inpaint of a real photograph ----------------------------------------------


def test_img2img_of_a_photo_keeps_its_proportions(server: RunningServer, photo: Path) -> None:
    answer = server.http.post(
        "/img2img",
        data={"prompt": "a pizza", "strength": "0.6", "num_inference_steps": "4"},
        files={"image": photo.read_bytes()},
        headers={"accept": "image/png"},
    )

    assert answer.status_code == 200, answer.text
    width, height = picture(answer.content).size
    assert width % 8 == height % 8 == 0
    assert width / height == pytest.approx(451 / 300, rel=0.1)


def test_less_strength_stays_nearer_to_the_photo(server: RunningServer, photo: Path) -> None:
    distances = []
    for strength in (0.1, 1.0):
        answer = server.http.post(
            "/img2img",
            data={"prompt": "a pizza", "strength": strength, "num_inference_steps": 10, "seed": 1},
            files={"image": photo.read_bytes()},
            headers={"accept": "image/png"},
        )
        source = Image.open(photo).resize(picture(answer.content).size)
        distance = pixels(answer.content) - np.asarray(source, dtype=np.int16)
        distances.append(np.abs(distance).mean())

    assert distances[0] < distances[1]


def inpainted(server: RunningServer, photo: Path, mask: Path, **fields: object) -> bytes:
    answer = server.http.post(
        "/inpaint",
        data={"prompt": "a pizza", "num_inference_steps": 3, "seed": 1, **fields},
        files={"image": photo.read_bytes(), "mask_image": mask.read_bytes()},
        headers={"accept": "image/png"},
    )
    assert answer.status_code == 200, answer.text
    return answer.content


def outside(mask: Path, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.open(mask).resize(size, Image.Resampling.BILINEAR)) == 0


def test_inpaint_changes_nothing_outside_the_mask(
    server: RunningServer, photo: Path, mask: Path
) -> None:
    painted = pixels(inpainted(server, photo, mask))
    size = (painted.shape[1], painted.shape[0])
    source = Image.open(photo).resize(size, Image.Resampling.LANCZOS)
    changed = np.abs(painted - np.asarray(source, dtype=np.int16)).max(axis=2)

    assert changed[outside(mask, size)].max() == 0
    assert changed[~outside(mask, size)].mean() > 8


def test_inpaint_without_pasting_back_changes_no_more_than_the_autoencoder(
    server: RunningServer, photo: Path, mask: Path
) -> None:
    kept = pixels(inpainted(server, photo, mask, keep_unmasked=True))
    stock = pixels(inpainted(server, photo, mask, keep_unmasked=False))
    away = outside(mask, (kept.shape[1], kept.shape[0]))

    difference = np.abs(kept - stock).mean(axis=2)[away].mean()
    assert 0 < difference < 40


def test_an_inverted_mask_repaints_the_rest(server: RunningServer, photo: Path, mask: Path) -> None:
    painted = pixels(inpainted(server, photo, mask, invert_mask="true"))
    size = (painted.shape[1], painted.shape[0])
    source = Image.open(photo).resize(size, Image.Resampling.LANCZOS)
    changed = np.abs(painted - np.asarray(source, dtype=np.int16)).max(axis=2)
    inside = np.asarray(Image.open(mask).resize(size, Image.Resampling.BILINEAR)) == 255

    assert changed[inside].max() == 0


def test_repainting_the_surroundings_of_the_mask_only_keeps_the_photos_size(
    server: RunningServer, photo: Path, mask: Path
) -> None:
    painted = pixels(inpainted(server, photo, mask, padding_mask_crop=16))
    source = np.asarray(Image.open(photo), dtype=np.int16)
    changed = np.abs(painted - source).max(axis=2)

    assert painted.shape == source.shape
    assert changed[outside(mask, (451, 300))].max() == 0
    assert changed.max() > 8


def test_a_mask_may_be_drawn_in_alpha(server: RunningServer, photo: Path, mask: Path) -> None:
    drawn = Image.new("RGBA", (451, 300), (0, 0, 0, 0))
    drawn.putalpha(Image.open(mask))
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG")
    answer = server.http.post(
        "/inpaint",
        data={"prompt": "a pizza", "num_inference_steps": 3, "seed": 1},
        files={"image": photo.read_bytes(), "mask_image": buffer.getvalue()},
        headers={"accept": "image/png"},
    )

    assert (pixels(answer.content) == pixels(inpainted(server, photo, mask))).all()


@pytest.mark.parametrize("form", ["base64", "data URI", "file part"])
def test_a_picture_may_come_in_any_of_three_ways(
    server: RunningServer, photo: Path, form: str
) -> None:
    fields = {"prompt": "a pizza", "num_inference_steps": 2, "seed": 1}
    encoded = base64.b64encode(photo.read_bytes()).decode()
    if form == "file part":
        answer = server.http.post("/img2img", data=fields, files={"image": photo.read_bytes()})
    else:
        prefix = "data:image/jpeg;base64," if form == "data URI" else ""
        answer = server.http.post("/img2img", json={**fields, "image": prefix + encoded})

    assert answer.json()["status"] == "succeeded", answer.text


def test_a_stored_picture_is_used_again_without_upload(server: RunningServer) -> None:
    first = server.txt2img("a fox").json()["images"][0]
    body = {"prompt": "a wolf", "image": f"image:{first['id']}", "num_inference_steps": 4}

    job = server.http.post("/img2img", json=body).json()

    assert job["status"] == "succeeded"
    assert job["request"]["image"] == f"image:{first['id']}"
    assert (job["images"][0]["width"], job["images"][0]["height"]) == (128, 128)


def test_a_phones_photo_is_turned_the_right_way_up(server: RunningServer, photo: Path) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° to show
    Image.open(photo).save(buffer, "JPEG", exif=exif)
    answer = server.http.post(
        "/img2img",
        data={"prompt": "a cat", "num_inference_steps": 2},
        files={"image": buffer.getvalue()},
        headers={"accept": "image/png"},
    )

    width, height = picture(answer.content).size
    assert height > width


def test_an_iphones_heic_is_read(server: RunningServer, photo: Path) -> None:
    pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    Image.open(photo).save(buffer, "HEIF")
    answer = server.http.post(
        "/img2img",
        data={"prompt": "a cat", "num_inference_steps": 2},
        files={"image": buffer.getvalue()},
    )

    assert answer.json()["status"] == "succeeded", answer.text


# --- waiting -------------------------------------------------------------------------------


def test_respond_async_answers_at_once(server: RunningServer) -> None:
    answer = server.http.post(
        "/txt2img", json={"prompt": "a fox"}, headers={"prefer": "respond-async"}
    )

    assert answer.status_code == 202
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    assert answer.json()["status"] in ("queued", "running")
    assert server.finished(answer.json()["id"])["status"] == "succeeded"


def test_wait_n_answers_202_when_patience_ends(idle_server: RunningServer) -> None:
    answer = idle_server.http.post(
        "/txt2img", json={"prompt": "a fox"}, headers={"prefer": "wait=1"}
    )

    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"


def test_wait_n_answers_200_when_the_job_ends_first(server: RunningServer) -> None:
    body = {"prompt": "a fox", "num_inference_steps": 1}
    answer = server.http.post("/txt2img", json=body, headers={"prefer": "wait=100"})

    assert answer.status_code == 200


def test_an_answer_that_was_waited_for_carries_its_requests_id(server: RunningServer) -> None:
    body = {"prompt": "a fox", "num_inference_steps": 1}
    answer = server.http.post("/txt2img", json=body, headers={"x-request-id": "from-the-caller-2"})

    assert answer.json()["status"] == "succeeded"
    assert answer.headers["x-request-id"] == "from-the-caller-2"


def test_an_idempotency_key_makes_a_repeat_the_same_job(server: RunningServer) -> None:
    headers = {"idempotency-key": "tap-tap"}
    body = {"prompt": "a fox", "num_inference_steps": 1}
    first, second = (
        server.http.post("/txt2img", json=body, headers=headers).json() for _ in range(2)
    )
    conflict = server.http.post("/txt2img", json={**body, "prompt": "a wolf"}, headers=headers)

    assert first["id"] == second["id"]
    assert conflict.status_code == 422
    assert conflict.json()["type"] == "urn:darkroom:problem:idempotency"


def newest(server: RunningServer) -> dict[str, Any]:
    job: dict[str, Any] = server.http.get("/jobs?limit=1").json()["jobs"][0]
    return job


@pytest.fixture
def hang_up(idle_server: RunningServer) -> Callable[..., None]:
    """Sends a POST and closes the connection without reading the answer."""
    idle_server.submit()  # so that there is a newest job

    def send(path: str, key: str | None = None) -> None:
        body = b'{"prompt": "hang up"}'
        host, port = idle_server.url.removeprefix("http://").split(":")
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        head += f"Idempotency-Key: {key}\r\n\r\n" if key else "\r\n"
        before = newest(idle_server)["id"]
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + body)
            while newest(idle_server)["id"] == before:
                pass  # until it was accepted

    return send


def test_whoever_accepts_pictures_gets_no_json_in_place_of_a_deleted_one(
    server: RunningServer,
) -> None:
    body = {"prompt": "a red fox", "num_inference_steps": 1, "width": 64, "height": 64}
    key = {"idempotency-key": "of a deleted picture"}
    first = server.http.post("/txt2img", json=body, headers=key)
    server.http.delete(first.json()["images"][0]["url"])

    picture = server.http.post("/txt2img", json=body, headers={**key, "accept": "image/png"})
    assert picture.status_code == 404
    assert picture.headers["content-type"] == "application/problem+json"
    job = server.http.post("/txt2img", json=body, headers=key)
    assert (job.status_code, job.json()["images"]) == (200, [])


def test_a_caller_that_goes_away_loses_nothing(
    idle_server: RunningServer, hang_up: Callable[..., None]
) -> None:
    hang_up("/txt2img")

    assert newest(idle_server)["status"] == "queued"


def test_a_caller_may_want_its_job_cancelled_with_it(
    idle_server: RunningServer, hang_up: Callable[..., None]
) -> None:
    hang_up("/txt2img?cancel_on_disconnect=true")

    kinds = [event["event"] for event in idle_server.events(newest(idle_server)["id"])]

    assert kinds == ["queued", "cancelled"]


def test_a_job_cancelled_with_its_caller_is_not_what_a_repeat_gets(
    idle_server: RunningServer, hang_up: Callable[..., None]
) -> None:
    hang_up("/txt2img?cancel_on_disconnect=true", key="once more")
    cancelled = newest(idle_server)["id"]
    assert [e["event"] for e in idle_server.events(cancelled)][-1] == "cancelled"

    again = idle_server.http.post(
        "/txt2img",
        json={"prompt": "hang up"},
        headers={"idempotency-key": "once more", "prefer": "respond-async"},
    )

    assert (again.status_code, again.json()["status"]) == (202, "queued")
    assert again.json()["id"] != cancelled
