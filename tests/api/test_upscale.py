"""Networks that make pictures larger: POST /upscale, GET /upscalers, and by A1111's names."""

import base64
import io
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from darkroom_client import Client, InvalidRequestError
from tests import upscalers
from tests.compat.test_a1111 import API, ask, encoded
from tests.effort import sampled
from tests.sdk.test_terminal import made
from tests.sdk.test_terminal import run as terminal
from tests.serving import RunningServer


def zeros(path: Path, **shapes: tuple[int, ...]) -> None:
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    save_file(weights, path)


@pytest.fixture(scope="module")
def upscaling(server: RunningServer) -> Iterator[RunningServer]:
    """The shared server with upscalers, good and bad."""
    folder = server.data_dir / "upscalers"
    upscalers.save(folder, "tiny-x2", scale=2)
    upscalers.save(folder, "tiny-x4", scale=4)
    whole = (folder / "tiny-x2.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-100])
    (folder / "old.pth").write_bytes(b"PK\x03\x04")
    (folder / "page.safetensors").write_bytes(b"<!doctype html>")
    zeros(folder / "lora.safetensors", **{"lora_up.weight": (4, 4)})
    grey = {"conv_first.weight": (8, 1, 3, 3), "conv_last.weight": (1, 8, 3, 3)}
    zeros(folder / "grey.safetensors", **grey, **{"conv_up1.weight": (8, 8, 3, 3)})
    server.wait_until_idle()
    yield server
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def small(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph that takes 2×2 tiles."""
    path = tmp_path_factory.mktemp("small") / "small.png"
    with Image.open(photo) as opened:
        opened.resize((200, 150)).save(path)
    return path


@pytest.fixture(scope="module")
def medium(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph that takes thirty tiles."""
    path = tmp_path_factory.mktemp("medium") / "medium.png"
    with Image.open(photo) as opened:
        opened.resize((600, 500)).save(path)
    return path


@pytest.fixture(scope="module")
def large(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph that takes a hundred tiles."""
    path = tmp_path_factory.mktemp("large") / "large.png"
    with Image.open(photo) as opened:
        opened.resize((1130, 1130)).save(path)
    return path


def upscale(server: RunningServer, photo: Path, **fields: Any) -> httpx2.Response:
    headers = fields.pop("headers", {})
    values = {"upscaler": "tiny-x2", **fields}
    return server.http.post(
        "/upscale",
        data={name: str(value) for name, value in values.items() if value is not None},
        files={"image": photo.read_bytes()},
        headers=headers,
    )


def refused(answer: httpx2.Response) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}


def test_upscalers_are_told_and_what_cannot_be_used(upscaling: RunningServer) -> None:
    answer = upscaling.http.get("/upscalers").json()

    assert answer["upscalers"] == [
        {"name": name, "architecture": architecture, "scale": scale, "max_pixels": pixels}
        for name, architecture, scale, pixels in (
            ("tiny-x2", "ESRGAN", 2, 2048**2),
            ("tiny-x4", "ESRGAN", 4, 1024**2),
            ("tintype-x2", "Compact", 2, 2048**2),
            ("tintype-x4", "Compact", 4, 1024**2),
        )
    ]
    reasons = {broken["file"]: broken["reason"] for broken in answer["broken"]}
    assert reasons.keys() == {
        *("cut.safetensors", "grey.safetensors", "lora.safetensors"),
        *("old.pth", "page.safetensors"),
    }
    assert "pickle" in reasons["old.pth"]
    assert "cut off" in reasons["cut.safetensors"]
    assert "ESRGAN" in reasons["lora.safetensors"]
    assert "red, green and blue" in reasons["grey.safetensors"]


def test_a_picture_becomes_larger(upscaling: RunningServer, small: Path) -> None:
    job = upscale(upscaling, small).json()

    assert (job["task"], job["status"]) == ("upscale", "succeeded")
    assert job["progress"] == {"step": 4, "steps": 4}
    (image,) = job["images"]
    assert (image["width"], image["height"]) == (400, 300)
    assert job["request"].keys() == {"image", "upscaler", "scale", "output_format"}


@pytest.mark.parametrize("scale", [2, 4])
def test_a_drawing_of_the_demo_model_becomes_larger_without_any_file(
    upscaling: RunningServer, scale: int
) -> None:
    drawn = upscaling.txt2img(prompt="a cat", num_inference_steps=2).json()["images"][0]

    answer = upscaling.http.post(
        "/upscale", json={"image": f"image:{drawn['id']}", "upscaler": f"tintype-x{scale}"}
    )

    (image,) = answer.json()["images"]
    assert (image["width"], image["height"]) == (128 * scale, 128 * scale)


@pytest.mark.slow
def test_without_a_name_one_is_chosen_and_told(upscaling: RunningServer, small: Path) -> None:
    plain = upscale(upscaling, small, upscaler=None).json()
    larger = upscale(upscaling, small, upscaler=None, scale=3).json()

    for job, chosen, scale in ((plain, "tiny-x2", 2), (larger, "tiny-x4", 3)):
        assert (job["request"]["upscaler"], job["request"]["scale"]) == (chosen, scale)
        assert (job["images"][0]["width"], job["images"][0]["height"]) == (200 * scale, 150 * scale)
    assert "5 times larger" in refused(upscale(upscaling, small, upscaler=None, scale=5))["#/scale"]


def test_a_request_sent_back_makes_the_same_picture(upscaling: RunningServer, small: Path) -> None:
    first = upscale(upscaling, small, scale=1.5).json()

    second = upscaling.http.post("/upscale", json=first["request"]).json()

    assert second["images"][0]["sha256"] == first["images"][0]["sha256"]
    assert second["images"][0]["width"] == 300


def test_a_stored_picture_is_upscaled_without_being_sent(upscaling: RunningServer) -> None:
    made = upscaling.txt2img().json()["images"][0]

    body = {"image": f"image:{made['id']}", "upscaler": "tiny-x4"}
    answer = upscaling.http.post("/upscale", json=body, headers={"accept": "image/webp"})

    assert answer.headers["content-type"] == "image/webp"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (4 * made["width"], 4 * made["height"])


def test_the_picture_says_how_it_was_made(upscaling: RunningServer, small: Path) -> None:
    answer = upscale(upscaling, small, headers={"accept": "image/png"})

    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.text["parameters"] == (  # type: ignore[attr-defined]
            "Postprocess upscale by: 2, Postprocess upscaler: tiny-x2"
        )


def test_it_can_be_waited_for_like_any_other(upscaling: RunningServer, small: Path) -> None:
    key = {"prefer": "respond-async", "idempotency-key": "once"}
    answer = upscale(upscaling, small, headers=key)
    assert answer.status_code == 202
    again = upscale(upscaling, small, headers=key)

    job = answer.json()
    assert again.json()["id"] == job["id"]
    assert job["progress"]["steps"] == 4
    names = [event["event"] for event in upscaling.events(job["id"])]
    assert names[0] == "queued"
    assert names.count("progress") == 4
    assert names[-2:] == ["image", "succeeded"]


def test_what_is_wrong_is_named(upscaling: RunningServer, small: Path) -> None:
    assert (
        "did you mean tiny-x2"
        in refused(upscale(upscaling, small, upscaler="tinyx2"))["#/upscaler"]
    )
    assert "cut off" in refused(upscale(upscaling, small, upscaler="cut"))["#/upscaler"]
    assert "no upscaler" in refused(upscale(upscaling, small, upscaler="../tiny-x2"))["#/upscaler"]
    assert "up to 2 times" in refused(upscale(upscaling, small, scale=3))["#/scale"]
    assert "#/prompt" in refused(upscale(upscaling, small, prompt="a fox"))
    assert "#/scale" in refused(upscale(upscaling, small, scale="nan"))


def test_a_picture_too_large_to_make_larger_is_refused(
    upscaling: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (1600, 1400)).save(path)

    assert (
        "takes pictures of up to 1048576 pixels"
        in refused(upscale(upscaling, path, upscaler="tiny-x4"))["#/image"]
    )


def test_a_cancelled_one_ends(upscaling: RunningServer, large: Path) -> None:
    job = upscale(upscaling, large, headers={"prefer": "respond-async"}).json()
    for event in upscaling.events(job["id"]):
        if event["event"] == "progress":
            break

    told = upscaling.http.get(f"/jobs/{job['id']}").json()["progress"]
    upscaling.http.delete(f"/jobs/{job['id']}")

    assert 0 < told["step"] < told["steps"]
    ended = upscaling.finished(job["id"])
    assert ended["status"] == "cancelled"
    assert ended["images"] == []
    assert ended["progress"]["step"] < 100


@pytest.mark.slow
def test_a_killed_worker_makes_the_same_picture_again(
    upscaling: RunningServer, medium: Path
) -> None:
    undisturbed = upscale(upscaling, medium).json()
    job = upscale(upscaling, medium, headers={"prefer": "respond-async"}).json()
    for event in upscaling.events(job["id"]):
        if event["event"] == "started":
            upscaling.child("worker").send_signal(signal.SIGKILL)
            break

    ended = upscaling.finished(job["id"])

    assert (ended["status"], ended["attempts"]) == ("succeeded", 2)
    assert ended["images"][0]["sha256"] == undisturbed["images"][0]["sha256"]


# --- by A1111's names ----------------------------------------------------------------------


def test_a1111_lists_them_behind_its_own(upscaling: RunningServer) -> None:
    listed = upscaling.http.get(f"{API}/upscalers").json()

    assert [(each["name"], each["scale"]) for each in listed] == [
        *(("None", 4.0), ("Lanczos", 4.0), ("Nearest", 4.0)),
        *(("tiny-x2", 2.0), ("tiny-x4", 4.0), ("tintype-x2", 2.0), ("tintype-x4", 4.0)),
    ]


@pytest.mark.slow
def test_extras_are_the_networks_picture(upscaling: RunningServer, small: Path) -> None:
    with Image.open(small) as opened:
        picture = opened.convert("RGB")
    fields = {"upscaler_1": "Tiny-X2", "upscaling_resize": 2}

    one = upscaling.http.post(
        f"{API}/extra-single-image", json={"image": encoded(picture), **fields}
    ).json()
    several = {"imageList": [{"data": encoded(picture), "name": "a"}] * 2, **fields}
    two = upscaling.http.post(f"{API}/extra-batch-images", json=several).json()

    ours = upscale(upscaling, small, headers={"accept": "image/png"}).content
    assert pixels(base64.b64decode(one["image"])) == pixels(ours)
    assert two["images"] == [one["image"]] * 2
    assert one["html_info"] == ""


@pytest.mark.slow
def test_extras_come_as_large_as_asked(upscaling: RunningServer, small: Path) -> None:
    with Image.open(small) as opened:
        picture = opened.convert("RGB")
    for fields, size in (
        ({"upscaling_resize": 3}, (600, 450)),  # the network, then a filter
        ({"upscaling_resize": 1.5}, (300, 225)),
        ({"resize_mode": 1, "upscaling_resize_w": 256, "upscaling_resize_h": 256}, (256, 256)),
    ):
        body = {"image": encoded(picture), "upscaler_1": "tiny-x2", **fields}
        made = upscaling.http.post(f"{API}/extra-single-image", json=body).json()

        with Image.open(io.BytesIO(base64.b64decode(made["image"]))) as larger:
            assert larger.size == size


def test_a1111s_names_mean_the_files_it_downloads(upscaling: RunningServer, small: Path) -> None:
    path = upscalers.save(upscaling.data_dir / "upscalers", "RealESRGAN_x2plus", scale=2)
    try:
        body = {"image": encoded(Image.open(small)), "upscaler_1": "R-ESRGAN 2x+"}
        answer = upscaling.http.post(f"{API}/extra-single-image", json=body)
    finally:
        path.unlink()

    assert answer.json()["html_info"] == ""
    assert "x-ignored-fields" not in answer.headers


def test_hires_fix_draws_over_the_networks_picture(upscaling: RunningServer) -> None:
    fields = {"enable_hr": True, "hr_scale": 2, "denoising_strength": 0.5, "batch_size": 2}
    small = {"width": 64, "height": 64}

    ours = ask(upscaling, "txt2img", **fields, **small, hr_upscaler="tiny-x2")
    plain = ask(upscaling, "txt2img", **fields, **small, hr_upscaler="Lanczos")

    assert [picture.size for picture in ours["pictures"]] == [(128, 128)] * 2
    assert ours["info"]["all_seeds"] == [7, 8]
    assert ours["info"]["ignored"] == []
    assert ours["images"] != plain["images"]


@pytest.mark.slow
def test_hires_fix_and_extras_take_those_of_the_package(upscaling: RunningServer) -> None:
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "tintype-x2"}

    drawn = ask(upscaling, "txt2img", width=64, height=64, denoising_strength=0.4, **hires)
    body = {"image": drawn["images"][0], "upscaler_1": "tintype-x4", "upscaling_resize": 4}
    extra = upscaling.http.post(f"{API}/extra-single-image", json=body)

    assert drawn["info"]["ignored"] == []
    assert [picture.size for picture in drawn["pictures"]] == [(128, 128)]
    assert extra.json()["html_info"] == ""
    assert "x-ignored-fields" not in extra.headers
    with Image.open(io.BytesIO(base64.b64decode(extra.json()["image"]))) as larger:
        assert larger.size == (512, 512)


@pytest.mark.slow
def test_sd_upscale_draws_over_the_networks_picture(upscaling: RunningServer, small: Path) -> None:
    with Image.open(small) as opened:
        picture = opened.convert("RGB").resize((96, 64))
    fields = {"script_name": "sd upscale", "width": 128, "height": 128, "denoising_strength": 0.5}

    made = [
        ask(
            upscaling,
            "img2img",
            init_images=[encoded(picture)],
            script_args=["", 16, upscaler, 2],
            **fields,
        )
        for upscaler in ("tiny-x2", 3, "Lanczos")
    ]

    assert [each["pictures"][0].size for each in made] == [(192, 128)] * 3
    assert made[0]["images"] == made[1]["images"], "by its place in the list too"
    assert made[0]["images"] != made[2]["images"]


@pytest.mark.slow
@pytest.mark.parametrize("route", sampled(["extra-single-image", "img2img", "txt2img"]))
def test_an_interrupted_network_is_answered_with_what_there_is(
    upscaling: RunningServer, medium: Path, route: str
) -> None:
    with Image.open(medium) as opened:
        picture = encoded(opened.convert("RGB"))
    common = {"prompt": "a red fox", "steps": 1, "seed": 7, "denoising_strength": 1}
    body = {
        "extra-single-image": {"image": picture, "upscaler_1": "tiny-x2"},
        "img2img": common
        | {"init_images": [picture], "width": 512, "height": 512}
        | {"script_name": "sd upscale", "script_args": ["", 0, "tiny-x2", 1]},
        "txt2img": common
        | {"width": 512, "height": 512, "enable_hr": True, "hr_scale": 1}
        | {"hr_upscaler": "tiny-x2"},
    }[route]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(upscaling.http.post, f"{API}/{route}", json=body)
        _interrupt_when_upscaling(upscaling, asked)
        answer = asked.result()

    told = answer.json()
    assert answer.status_code == 200, told
    if route == "extra-single-image":
        assert "upscaler_1" in told["html_info"]
        assert Image.open(io.BytesIO(base64.b64decode(told["image"]))).size == (1200, 1000)
    else:
        assert len(told["images"]) == (1 if route == "txt2img" else 0)


def _interrupt_when_upscaling(server: RunningServer, asked: "Future[httpx2.Response]") -> None:
    while not asked.done():
        running = server.http.get("/jobs", params={"status": "running"}).json()["jobs"]
        if any(job["task"] == "upscale" and job["progress"]["step"] for job in running):
            server.http.post(f"{API}/interrupt")
            return


# --- with the SDK and on a terminal --------------------------------------------------------


@pytest.mark.slow
def test_the_sdk_upscales(upscaling: RunningServer, small: Path) -> None:
    with Client(upscaling.url) as client:
        assert [(found.name, found.scale) for found in client.upscalers()] == [
            ("tiny-x2", 2),
            ("tiny-x4", 4),
            ("tintype-x2", 2),
            ("tintype-x4", 4),
        ]
        listed = upscaling.http.get("/upscalers").json()["upscalers"]
        told = [found.max_pixels for found in client.upscalers()]
        assert told == [each["max_pixels"] for each in listed]

        job = client.upscale(image=small, upscaler="tiny-x4", scale=1.5).wait(60)
        again = client.upscale(**job.request).wait(60)

        assert job.images[0].pil().size == (300, 225)
        assert again.images[0].sha256 == job.images[0].sha256
        with pytest.raises(InvalidRequestError, match="upscaler"):
            client.upscale(image=small, upscaler="tiny-x8")


@pytest.mark.slow
def test_a_terminal_upscales(upscaling: RunningServer, small: Path, tmp_path: Path) -> None:
    where = {"folder": tmp_path, "DARKROOM_URL": upscaling.url}

    assert made(terminal("upscalers", **where))[0] == "tiny-x2  ESRGAN  ×2"
    asked = ("--upscaler", "tiny-x2", "-o", "large.png")
    assert made(terminal("upscale", str(small), *asked, **where)) == ["large.png"]
    assert made(terminal("upscale", "-", *asked, given=small.read_bytes(), **where))
    (tmp_path / "rows.csv").write_text(f"image,upscaler,scale\n{small},tiny-x2,1\n")
    (same,) = made(terminal("batch", "rows.csv", **where))

    with Image.open(tmp_path / "large.png") as large, Image.open(tmp_path / same) as unchanged:
        assert (large.size, unchanged.size) == ((400, 300), (200, 150))
    (tmp_path / "scaled.csv").write_text(f"image,scale\n{small},1.5\n")
    (scaled,) = made(terminal("batch", "scaled.csv", **where))
    assert made(terminal("upscale", str(small), "-o", "plain.png", **where)) == ["plain.png"]
    sizes = {scaled: (300, 225), "plain.png": (400, 300)}
    for name, size in sizes.items():
        with Image.open(tmp_path / name) as picture:
            assert picture.size == size
    refused = terminal("upscale", str(small), "--upscaler", "tiny-x8", **where)
    assert refused.returncode == 2
    assert b"did you mean tiny-x" in refused.stderr


def pixels(file: bytes) -> bytes:
    with Image.open(io.BytesIO(file)) as picture:
        return picture.convert("RGB").tobytes()
