"""The OpenAI SDK, unmodified: only its base URL is changed."""

import asyncio
import base64
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image, ImageChops, ImageDraw

from tests.api.test_loras import lora, save
from tests.security.doors import PASSED_ON, client, issue
from tests.serving import RunningServer, running
from tests.waiting import PATIENCE_S, eventually

SMALL = {"seed": 7, "num_inference_steps": 2}  # our own knobs, as `extra_body`


def sdk(
    server: RunningServer, token: str, max_retries: int = 0, timeout_s: float = 120
) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{server.url}/v1",
        api_key=token,
        max_retries=max_retries,
        timeout=timeout_s,
        default_headers=PASSED_ON,
    )


@pytest.fixture(scope="module")
def token(server: RunningServer) -> str:
    secret: str = issue(server, "a program written for OpenAI")["token"]
    return secret


@pytest.fixture(scope="module")
def ai(server: RunningServer, token: str) -> Iterator[openai.OpenAI]:
    with sdk(server, token) as started:
        yield started


@pytest.fixture(scope="module")
def cutout(mask: Path, photo: Path) -> bytes:
    """The photograph with a hole where the mask is white, PNG."""
    picture = Image.open(photo).convert("RGB")
    picture.putalpha(ImageChops.invert(Image.open(mask)))
    return png(picture)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def opened(b64: str | None) -> Image.Image:
    assert b64 is not None
    picture = Image.open(io.BytesIO(base64.b64decode(b64)))
    picture.load()
    return picture


def pictures_of(answer: openai.types.ImagesResponse) -> list[Image.Image]:
    assert answer.data is not None
    return [opened(image.b64_json) for image in answer.data]


# --- generations ---------------------------------------------------------------------------


def test_words_become_a_picture(ai: openai.OpenAI) -> None:
    answer = ai.images.generate(prompt="a red fox", extra_body=SMALL)

    (picture,) = pictures_of(answer)
    assert (picture.format, picture.size) == ("PNG", (128, 128))
    assert answer.size == "128x128"
    assert answer.output_format == "png"
    assert answer.background == "opaque"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 0
    assert answer.created > 1_700_000_000


def test_it_is_the_picture_that_our_own_route_makes(
    server: RunningServer, ai: openai.OpenAI
) -> None:
    knobs = {**SMALL, "negative_prompt": "blue", "guidance_scale": 2.5, "scheduler": "euler"}
    theirs = ai.images.generate(prompt="a red fox", size="96x128", extra_body=knobs)
    job = server.txt2img(width=96, height=128, **knobs).json()
    ours = Image.open(io.BytesIO(server.http.get(job["images"][0]["url"]).content))

    (picture,) = pictures_of(theirs)
    assert picture.size == (96, 128)
    assert ImageChops.difference(picture, ours).getbbox() is None


def test_several_pictures_come_with_their_seeds(ai: openai.OpenAI) -> None:
    answer = ai.images.generate(prompt="a red fox", n=3, extra_body=SMALL)

    assert answer.data is not None
    assert [image.model_extra["seed"] for image in answer.data if image.model_extra] == [7, 8, 9]
    assert len({image.b64_json for image in answer.data}) == 3


@pytest.mark.slow
def test_as_many_pictures_as_openai_makes_take_two_jobs(ai: openai.OpenAI) -> None:
    answer = ai.images.generate(prompt="a red fox", n=10, extra_body=SMALL)

    assert answer.data is not None
    seeds = [image.model_extra["seed"] for image in answer.data if image.model_extra]
    assert seeds == list(range(7, 17))
    assert len({image.b64_json for image in answer.data}) == 10


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pictures_come_in_each_format(ai: openai.OpenAI, kind: str) -> None:
    answer = ai.images.generate(
        prompt="a red fox",
        output_format=kind,  # type: ignore[arg-type]
        extra_body=SMALL,
    )

    (picture,) = pictures_of(answer)
    assert picture.format == kind.upper()
    assert answer.output_format == kind


def test_an_asynchronous_client_is_answered_alike(server: RunningServer, token: str) -> None:
    async def generate() -> openai.types.ImagesResponse:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key=token, default_headers=PASSED_ON
        ) as ai:
            return await ai.images.generate(prompt="a red fox", extra_body=SMALL)

    (picture,) = pictures_of(asyncio.run(generate()))
    assert picture.size == (128, 128)


def test_what_has_no_effect_is_named(ai: openai.OpenAI) -> None:
    raw = ai.images.with_raw_response.generate(
        prompt="a red fox",
        model="gpt-image-1",
        size="1024x1024",
        quality="high",
        background="transparent",
        moderation="auto",
        style="vivid",
        user="ada",
        output_compression=50,
        extra_body={**SMALL, "steps\r\nx-evil": 1},
    )

    names = set(raw.headers["x-ignored-fields"].split(", "))
    assert names == {
        *("background", "model", "output_compression", "quality", "size", "steps??x-evil"),
        *("style", "user"),
    }
    assert "x-evil" not in raw.headers
    assert raw.parse().size == "128x128"
    assert set(raw.http_response.json()["ignored"]) - names == {"steps\r\nx-evil"}


# --- addresses -----------------------------------------------------------------------------


def address_of(answer: openai.types.ImagesResponse) -> str:
    assert answer.data is not None
    assert answer.data[0].b64_json is None
    assert answer.data[0].url is not None
    return answer.data[0].url


def test_an_address_opens_without_a_token(server: RunningServer, ai: openai.OpenAI) -> None:
    answer = ai.images.generate(prompt="a red fox", response_format="url", extra_body=SMALL)
    address = address_of(answer)

    assert address.startswith(server.url)
    with client(server) as stranger:
        shown = stranger.get(address, headers={"sec-fetch-site": "cross-site"})
        assert shown.status_code == 200
        assert shown.headers["content-type"] == "image/png"
        assert shown.headers["cross-origin-resource-policy"] == "cross-origin"
        assert Image.open(io.BytesIO(shown.content)).size == (128, 128)
        for changed in (
            address.replace("expires=1", "expires=2"),
            address[:-1] + ("A" if address[-1] != "A" else "Q"),
            address.replace("-0?", "-1?"),
            address.partition("?")[0] + "?expires=99999999999&signature=",
        ):
            assert stranger.get(changed).status_code in (403, 422), changed
        assert stranger.get(address.partition("?")[0]).status_code == 422


def test_dall_e_answers_addresses_by_itself(ai: openai.OpenAI) -> None:
    answer = ai.images.generate(prompt="a red fox", model="dall-e-3", extra_body=SMALL)

    assert address_of(answer)


def test_an_address_dies_with_the_token_it_was_made_for(server: RunningServer) -> None:
    issued = issue(server, "a program that is sent away")
    with sdk(server, issued["token"]) as ai:
        answer = ai.images.generate(prompt="a red fox", response_format="url", extra_body=SMALL)
    with client(server) as stranger:
        assert stranger.get(address_of(answer)).status_code == 200
        server.http.delete(f"/tokens/{issued['id']}")
        assert stranger.get(address_of(answer)).status_code == 403


# --- edits and variations ------------------------------------------------------------------


def test_the_transparent_part_is_repainted_and_nothing_else(
    ai: openai.OpenAI,
) -> None:
    whole = Image.new("RGB", (128, 128), (200, 30, 30))
    hole = whole.convert("RGBA")
    ImageDraw.Draw(hole).rectangle((32, 32, 95, 95), fill=(0, 0, 0, 0))

    answer = ai.images.edit(
        image=("whole.png", png(whole)),
        mask=("hole.png", png(hole)),
        prompt="a green frog",
        extra_body=SMALL,
    )

    (picture,) = pictures_of(answer)
    changed = ImageChops.difference(picture.convert("RGB"), whole).getbbox()
    assert changed is not None
    left, top, right, bottom = changed
    assert (left, top) >= (32, 32)
    assert (right, bottom) <= (96, 96)


def holed(photo: Path) -> tuple[Image.Image, bytes]:
    """A photograph, and it as a PNG with a hole."""
    with Image.open(photo) as opened:
        whole = opened.convert("RGB").resize((128, 128))
    hole = whole.convert("RGBA")
    hole.paste((0, 0, 0, 0), (32, 32, 96, 96))
    return whole, png(hole)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["dall-e-2", None])
def test_a_hole_in_the_picture_is_repainted_for_dall_e_and_named_for_others(
    ai: openai.OpenAI, photo: Path, model: str | None
) -> None:
    whole, hole = holed(photo)
    raw = ai.images.with_raw_response.edit(
        image=("hole.png", hole),
        prompt="a pizza",
        model=model,
        response_format="b64_json",
        extra_body={"seed": 7, "num_inference_steps": 4},
    )

    (picture,) = pictures_of(raw.parse())
    outside = ImageChops.difference(picture.convert("RGB"), whole).crop((0, 0, 128, 30)).getbbox()
    named = raw.http_response.json()["ignored"]
    assert (outside is None) is (model is not None)
    assert ("image (transparency)" in named) is (model is None)


@pytest.mark.slow
def test_an_edit_may_be_json(server: RunningServer, photo: Path, cutout: bytes) -> None:
    """As OpenAI's newer SDKs and gateways send it."""
    uri, hole = (
        "data:image/png;base64," + base64.b64encode(data).decode()
        for data in (photo.read_bytes(), cutout)
    )

    def edited(**pictures: object) -> dict[str, Any]:
        body = {"prompt": "a pizza", **SMALL, **pictures}
        answer = server.http.post("/v1/images/edits", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    plain = edited(image=uri)
    masked = edited(image=uri, mask=hole)
    assert plain["ignored"] == masked["ignored"] == []
    for pictures in (
        {"image": [uri]},
        {"images": [uri]},
        {"images": [{"image_url": uri}]},
        {"images": [{"image_url": {"url": uri}}]},
    ):
        assert edited(**pictures)["data"] == plain["data"]
    with_mask = edited(images=[{"image_url": uri}], mask={"image_url": hole})
    assert with_mask["data"] == masked["data"]
    several = edited(images=[{"image_url": uri}, {"image_url": hole}])
    assert (several["data"], several["ignored"]) == (plain["data"], ["images"])


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"image_url": "http://127.0.0.1:1/x.png"}, "nothing is ever fetched"),
        ({"file_id": "file-1"}, "a file of OpenAI's"),
        ({"x": 1}, "valid string"),
        (5, "valid string"),
    ],
)
def test_a_picture_that_was_not_sent_is_refused(
    server: RunningServer, item: object, reason: str
) -> None:
    body = {"prompt": "a pizza", "images": [item]}
    answer = server.http.post("/v1/images/edits", json=body)

    assert answer.status_code == 400
    assert reason in answer.json()["error"]["message"]


def test_loras_come_in_the_forms_that_the_sdk_sends(
    idle_server: RunningServer, photo: Path
) -> None:
    (idle_server.data_dir / "loras").mkdir(exist_ok=True)
    for name in ("ink", "wash"):
        save(idle_server.data_dir / "loras" / f"{name}.safetensors", lora(192))
    wanted = [{"name": "ink", "scale": 0.5}, {"name": "wash", "scale": 2.0}]
    numbered = {
        f"loras[{index}][{key}]": str(value)
        for index, item in enumerate(wanted)
        for key, value in item.items()
    }

    def asked(data: dict[str, Any]) -> Any:
        with client(idle_server, issue(idle_server, "painter")["token"]) as http:
            files, fields = {"image": photo.read_bytes()}, {"prompt": "a fox", **data}
            with pytest.raises(httpx2.ReadTimeout):
                http.post("/v1/images/edits", data=fields, files=files, timeout=0.5)
            (job,) = eventually(lambda: http.get("/jobs").json()["jobs"])
            http.delete(f"/jobs/{job['id']}")
            return job["request"]["loras"]

    assert asked({"loras": json.dumps(wanted)}) == wanted
    assert asked({"loras[][name]": ["ink", "wash"], "loras[][scale]": ["0.5", "2"]}) == wanted
    assert asked(numbered) == wanted
    ai = sdk(idle_server, issue(idle_server, "sdk")["token"], timeout_s=0.5)
    with ai, pytest.raises(openai.APITimeoutError):
        ai.images.edit(image=photo, prompt="a fox", extra_body={"loras": wanted})
    newest = idle_server.http.get("/jobs").json()["jobs"][0]
    assert newest["request"]["loras"] == wanted
    idle_server.http.delete(f"/jobs/{newest['id']}")


def test_loras_in_a_prompts_tags_are_applied_or_named(idle_server: RunningServer) -> None:
    (idle_server.data_dir / "loras").mkdir(exist_ok=True)
    save(idle_server.data_dir / "loras" / "tagged.safetensors", lora(192))
    body = {"prompt": "a fox <lora:tagged:0.5> <lora:none:1>", "stream": True}
    with (
        client(idle_server, issue(idle_server, "painter")["token"]) as http,
        http.stream("POST", "/v1/images/generations", json=body) as answer,
    ):
        (job,) = http.get("/jobs").json()["jobs"]
        http.delete(f"/jobs/{job['id']}")

    assert answer.headers["x-ignored-fields"] == "prompt <lora:none:1>"
    assert job["request"]["prompt"] == "a fox"
    assert job["request"]["loras"] == [{"name": "tagged", "scale": 0.5}]


def test_loras_of_which_one_lacks_a_part_must_be_numbered(
    idle_server: RunningServer, photo: Path
) -> None:
    answer = idle_server.http.post(
        "/v1/images/edits",
        data={"prompt": "a fox", "loras[][name]": ["a", "b"], "loras[][scale]": "1"},
        files={"image": photo.read_bytes()},
    )

    assert answer.status_code == 400
    assert "loras[0]" in answer.json()["error"]["message"]


def test_without_a_mask_all_of_it_is_redrawn(ai: openai.OpenAI, photo: Path) -> None:
    faithful, free = (
        pictures_of(
            ai.images.edit(
                image=photo,
                prompt="a pizza",
                input_fidelity=fidelity,  # type: ignore[arg-type]
                size="128x128",
                extra_body={"seed": 7, "num_inference_steps": 4},
            )
        )[0]
        for fidelity in ("high", "low")
    )

    assert faithful.size == free.size == (128, 128)
    assert ImageChops.difference(faithful, free).getbbox() is not None


def test_of_several_pictures_the_first_is_edited(ai: openai.OpenAI, photo: Path) -> None:
    other = ("other.png", png(Image.new("RGB", (64, 64), "blue")))
    raw = ai.images.with_raw_response.edit(image=[photo, other], prompt="a pizza", extra_body=SMALL)
    alone = ai.images.edit(image=photo, prompt="a pizza", extra_body=SMALL)

    assert raw.headers["x-ignored-fields"] == "image[]"
    assert raw.parse().data == alone.data


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # by OpenAI, not by us
def test_a_variation_needs_no_words(ai: openai.OpenAI, photo: Path) -> None:
    answer = ai.images.create_variation(image=photo, n=2, extra_body=SMALL)

    assert len(pictures_of(answer)) == 2


# --- streams -------------------------------------------------------------------------------


def test_a_picture_is_seen_on_its_way(ai: openai.OpenAI) -> None:
    stream = ai.images.generate(
        prompt="a red fox",
        stream=True,
        partial_images=2,
        output_format="webp",
        extra_body={"seed": 7, "num_inference_steps": 8},
    )

    *partials, done = list(stream)

    assert 1 <= len(partials) <= 2
    for index, event in enumerate(partials):
        assert event.type == "image_generation.partial_image"
        assert event.partial_image_index == index
        assert opened(event.b64_json).format == event.output_format.upper() == "WEBP"
    assert done.type == "image_generation.completed"
    assert done.usage.total_tokens == 0
    assert opened(done.b64_json).size == (128, 128)
    plain = ai.images.generate(
        prompt="a red fox",
        output_format="webp",
        extra_body={"seed": 7, "num_inference_steps": 8},
    )
    assert plain.data is not None
    assert done.b64_json == plain.data[0].b64_json


def test_an_edit_is_seen_on_its_way(
    server: RunningServer, token: str, photo: Path, cutout: bytes
) -> None:
    async def edit() -> list[str]:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key=token, default_headers=PASSED_ON
        ) as ai:
            stream = await ai.images.edit(
                image=photo,
                mask=("cutout.png", cutout),
                prompt="a pizza",
                stream=True,
                partial_images=1,
                extra_body={"seed": 7, "num_inference_steps": 4},
            )
            return [event.type async for event in stream]

    assert asyncio.run(edit()) == ["image_edit.partial_image", "image_edit.completed"]


def test_each_picture_of_a_stream_is_told(ai: openai.OpenAI) -> None:
    stream = ai.images.generate(prompt="a red fox", stream=True, n=2, extra_body=SMALL)

    assert [event.type for event in stream] == ["image_generation.completed"] * 2


def test_a_cancelled_job_is_an_error_in_its_stream(idle_server: RunningServer) -> None:
    with sdk(idle_server, issue(idle_server, "a stream's end")["token"]) as ai:
        stream = ai.images.generate(prompt="a cancelled fox", stream=True)
        job = idle_server.http.get("/jobs?limit=1").json()["jobs"][0]
        idle_server.http.delete(job["url"])

        with pytest.raises(openai.APIError, match="cancelled") as caught:
            list(stream)

    assert caught.value.code == "cancelled"


@pytest.mark.slow
def test_a_server_that_stops_says_so_in_its_streams(tmp_path: Path) -> None:
    with running(tmp_path, process="web") as server:
        token = issue(server, "a program")["token"]
        stream = sdk(server, token).images.generate(prompt="a red fox", stream=True)
        server.process.terminate()

        with pytest.raises(openai.APIError, match="stopping"):
            list(stream)


# --- models --------------------------------------------------------------------------------


def test_models_are_listed_the_default_first(ai: openai.OpenAI) -> None:
    models = list(ai.models.list())

    assert models[0].id == "tintype"
    assert (models[0].object, models[0].owned_by) == ("model", "darkroom")
    assert ai.models.retrieve("tintype") == models[0]


# --- errors --------------------------------------------------------------------------------


def test_a_wrong_key_is_an_authentication_error(server: RunningServer) -> None:
    wrong = sdk(server, "sk-of-somebody-else")
    with pytest.raises(openai.AuthenticationError) as caught:
        wrong.models.list()

    assert caught.value.code == "invalid_api_key"
    assert caught.value.type == "authentication_error"
    assert caught.value.request_id


def test_an_unknown_model_is_not_found(ai: openai.OpenAI) -> None:
    for ask in (
        lambda: ai.models.retrieve("no-such-model"),
        lambda: ai.models.retrieve("sdxl/no-such-model"),  # names have folders in them
        lambda: ai.images.generate(prompt="a red fox", model="no-such-model"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 11}, "n"),
        ({"n": 9, "stream": True}, "n"),
        ({"size": "large"}, "size"),
        ({"output_format": "gif"}, "output_format"),
        ({"response_format": "jpeg"}, "response_format"),
        ({"prompt": "x" * 8001}, "prompt"),
        ({"extra_body": {"seed": "seven"}}, "seed"),
        ({"extra_body": {"scheduler": "no-such"}}, "scheduler"),
        ({"extra_body": {"guidance_scale": 99}}, "guidance_scale"),
    ],
)
def test_what_is_not_valid_is_a_bad_request(
    ai: openai.OpenAI, fields: dict[str, object], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ai.images.generate(**{"prompt": "a red fox", **fields})  # type: ignore[call-overload]

    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.code == "invalid_value"


def test_a_mask_that_hides_nothing_or_does_not_fit_is_a_bad_request(
    ai: openai.OpenAI, photo: Path
) -> None:
    small = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    for mask, said in (
        (photo.read_bytes(), "no alpha channel"),
        (png(Image.new("RGBA", (451, 300), (0, 0, 0, 255))), "nothing to repaint"),
        (png(small), "32×32"),
        (b"not a picture", "not a picture"),
    ):
        with pytest.raises(openai.BadRequestError, match=said) as caught:
            ai.images.edit(image=photo, mask=("mask.png", mask), prompt="a pizza")
        assert caught.value.param == "mask"


def test_too_many_jobs_are_a_rate_limit_error(tmp_path: Path) -> None:
    crowded = {"DARKROOM_QUEUE__MAX_PENDING_PER_CLIENT": "1"}
    with running(tmp_path, process="web", **crowded) as server:
        token = issue(server, "a program")["token"]
        with client(server, token, prefer="respond-async") as http:
            assert http.post("/txt2img", json={"prompt": "a red fox"}).status_code == 202
        with sdk(server, token) as ai, pytest.raises(openai.RateLimitError) as caught:
            ai.images.generate(prompt="a red fox")

    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.code == "rate_limit_exceeded"


@pytest.mark.slow
def test_a_full_disk_is_a_server_error(tmp_path: Path) -> None:
    full = {"DARKROOM_QUEUE__MIN_FREE_BYTES": str(10**18)}
    with running(tmp_path, process="web", **full) as server:
        token = issue(server, "a program")["token"]
        with sdk(server, token) as ai, pytest.raises(openai.InternalServerError) as caught:
            ai.images.generate(prompt="a red fox")

    assert caught.value.status_code == 507
    assert "bytes are left" in caught.value.message


@pytest.mark.slow
def test_a_request_that_only_half_fits_the_queue_leaves_nothing_there(tmp_path: Path) -> None:
    crowded = {"DARKROOM_QUEUE__MAX_PENDING_PER_CLIENT": "1"}
    with running(tmp_path, process="web", **crowded) as server:
        token = issue(server, "a program")["token"]
        with sdk(server, token) as ai, pytest.raises(openai.RateLimitError):
            ai.images.generate(prompt="a red fox", n=10)

        assert [job["status"] for job in jobs_of(server, token)] == ["cancelled"]


def test_a_cancelled_job_is_a_conflict_and_is_not_tried_again(idle_server: RunningServer) -> None:
    token = issue(idle_server, "somebody whose job is cancelled")["token"]
    with sdk(idle_server, token, max_retries=2) as ai, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ai.images.generate, prompt="a fox to be cancelled")
        job = queued(idle_server, token)
        idle_server.http.delete(job["url"])

        with pytest.raises(openai.ConflictError):
            waiting.result(PATIENCE_S)

    assert len(jobs_of(idle_server, token)) == 1


def test_a_mask_that_is_no_picture_at_all_is_a_bad_request(server: RunningServer) -> None:
    body = {"prompt": "a pizza", "image": "image:x", "mask": 5}
    answer = server.http.post("/v1/images/edits", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "mask"


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"prompt": "a", "prompt": "b"}', b"[" * 100_000])
def test_what_is_not_a_json_object_is_refused_in_their_shape(
    server: RunningServer, body: bytes
) -> None:
    headers = {"content-type": "application/json"}
    answer = server.http.post("/v1/images/generations", content=body, headers=headers)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_page_that_is_not_there_is_not_found_in_their_shape(server: RunningServer) -> None:
    answer = server.http.post("/v1/chat/completions", json={})

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] is None


def test_whoever_looks_whether_this_is_openai_needs_no_token(server: RunningServer) -> None:
    with client(server) as stranger:
        answer = stranger.options(
            "/v1/images/generations", headers={"origin": "https://elsewhere.example"}
        )

    assert answer.is_success
    assert not [name for name in answer.headers if name.startswith("access-control-")]


# --- retries -------------------------------------------------------------------------------


def queued(server: RunningServer, token: str) -> dict[str, str]:
    """The only job of a token, once it is there."""
    with client(server, token) as http, http.stream("GET", "/events?last_event_id=0") as events:
        for line in events.iter_lines():
            if line.startswith("event: queued"):
                break
    (job,) = jobs_of(server, token)
    return job


def jobs_of(server: RunningServer, token: str) -> list[dict[str, str]]:
    with client(server, token) as http:
        jobs: list[dict[str, str]] = http.get("/jobs").json()["jobs"]
    return jobs


@pytest.mark.slow
def test_a_client_that_loses_patience_finds_its_job_again(idle_server: RunningServer) -> None:
    token = issue(idle_server, "an impatient program")["token"]
    ai = sdk(idle_server, token, max_retries=2, timeout_s=0.5)
    with ai, pytest.raises(openai.APITimeoutError):
        ai.images.generate(prompt="a slow fox")

    assert len(eventually(lambda: jobs_of(idle_server, token))) == 1


@pytest.mark.slow
def test_three_who_ask_alike_at_once_get_three_pictures(server: RunningServer, photo: Path) -> None:
    token = issue(server, "a program in three threads")["token"]
    together = threading.Barrier(3)

    def edit() -> openai.types.ImagesResponse:
        with sdk(server, token) as ai:
            together.wait(PATIENCE_S)
            return ai.images.edit(
                image=photo, prompt="a pizza", extra_body={"num_inference_steps": 60}
            )

    with ThreadPoolExecutor(3) as threads:
        answers = [future.result(120) for future in [threads.submit(edit) for _ in range(3)]]

    assert len(jobs_of(server, token)) == 3
    assert len({answer.data[0].b64_json for answer in answers if answer.data}) == 3


def test_who_asks_alike_with_another_token_gets_a_job_of_their_own(
    idle_server: RunningServer,
) -> None:
    tokens = [issue(idle_server, name)["token"] for name in ("one program", "another")]
    for token in tokens:
        with sdk(idle_server, token, timeout_s=0.5) as ai, pytest.raises(openai.APITimeoutError):
            ai.images.generate(prompt="a fox like any other")

    for token in tokens:
        assert len(eventually(lambda: jobs_of(idle_server, token))) == 1  # noqa: B023


@pytest.mark.slow
def test_pictures_of_retries_do_not_pile_up(idle_server: RunningServer, photo: Path) -> None:
    token = issue(idle_server, "an impatient editor")["token"]
    before = files_in(idle_server)
    ai = sdk(idle_server, token, max_retries=2, timeout_s=1.0)
    with ai, pytest.raises(openai.APITimeoutError):
        ai.images.edit(image=photo, prompt="a pizza")

    # What is sent last may still be read, and what was read for nothing still be deleted.
    assert len(eventually(lambda: jobs_of(idle_server, token))) == 1
    eventually(lambda: files_in(idle_server) == before + 1, about=lambda: files_in(idle_server))
    assert len(jobs_of(idle_server, token)) == 1


def files_in(server: RunningServer) -> int:
    return sum(path.is_file() for path in (server.data_dir / "images").rglob("*"))


def test_a_body_of_another_kind_is_refused(server: RunningServer) -> None:
    answer: httpx2.Response = server.http.post("/v1/images/generations", content=b"prompt=a+fox")

    assert answer.status_code == 415


def test_a_base_url_without_v1_says_what_is_missing(server: RunningServer) -> None:
    with (
        openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as ai,
        pytest.raises(openai.NotFoundError, match=rf"{server.url}/v1"),
    ):
        ai.images.generate(prompt="a red fox")


def test_a_base_url_without_v1_lists_the_models_all_the_same(server: RunningServer) -> None:
    with openai.OpenAI(base_url=server.url, api_key="none") as without:
        found = [model.id for model in without.models.list()]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as ai:
        assert found == [model.id for model in ai.models.list()] == ["tintype"]
