"""Edits by every client: our SDK and command, OpenAI's SDK, A1111's API, and an assistant."""

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from mcp import Client as Assistant
from PIL import Image

from darkroom_client import AsyncClient, Client, InvalidRequestError, Task
from darkroom_client.terminal import batch
from tests.clients.test_mcp import over_stdio, pictures
from tests.engine import tiny_families
from tests.security.doors import PASSED_ON, issue
from tests.serving import RunningServer, running

pytestmark = pytest.mark.slow

FAST = {"num_inference_steps": 2, "seed": 7}
PROMPT = "the first one wears the second one"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a model that takes one reference, and one that takes four."""
    box = tmp_path_factory.mktemp("studio")
    tiny_families.flux_kontext(box / "models" / "kontext")
    tiny_families.flux2_klein_distilled(box / "models" / "klein")
    with running(box) as started:
        yield started


@pytest.fixture(scope="module")
def ai(studio: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{studio.url}/v1",
        api_key=issue(studio, "a program")["token"],
        max_retries=0,
        timeout=120,
        default_headers=PASSED_ON,
    ) as started:
        yield started


@pytest.fixture(scope="module")
def client(studio: RunningServer) -> Iterator[Client]:
    with Client(studio.url, timeout_s=120) as started:
        yield started


def png(colour: str, size: int = 256) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return buffer.getvalue()


RED, BLUE = png("red"), png("blue")


@pytest.fixture(scope="module")
def expected(studio: RunningServer) -> bytes:
    """What `/edit` itself makes of a red and a blue picture."""
    return of(studio.http, "klein", RED, BLUE)


def of(http: httpx2.Client, model: str, *references: bytes) -> bytes:
    sent = [base64.b64encode(data).decode() for data in references]
    body = {"prompt": PROMPT, "model": model, "references": sent, **FAST}
    answer = http.post("/edit", json=body, headers={"accept": "image/png"})
    assert answer.status_code == 200, answer.text
    return answer.content


def pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.tobytes()


# --- our SDK -------------------------------------------------------------------------------


def test_the_sdk_edits_pictures_in_every_form(
    client: Client, expected: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "red.png"
    file.write_bytes(RED)
    blue = Image.open(io.BytesIO(BLUE))

    job = client.edit(PROMPT, references=[file, blue], model="klein", **FAST).wait(120)

    assert job.task is Task.EDIT
    assert job.images[0].bytes() == expected
    again = client.edit(**job.request).wait(120)
    assert again.images[0].bytes() == expected


def test_stored_pictures_and_files_keep_their_order(client: Client, expected: bytes) -> None:
    first = client.edit(PROMPT, references=[RED, BLUE], model="klein", **FAST).wait(120)
    red, blue = first.request["references"]

    for references in ([red, BLUE], [RED, blue], [red, blue]):
        job = client.edit(PROMPT, references=references, model="klein", **FAST).wait(120)
        assert pixels(job.images[0].bytes()) == pixels(expected)


def test_without_blocking_too(studio: RunningServer, expected: bytes) -> None:
    async def edit() -> bytes:
        async with AsyncClient(studio.url) as client:
            job = await client.edit(PROMPT, references=[RED, BLUE], model="klein", **FAST)
            await job.wait(120)
            return await job.images[0].bytes()

    assert asyncio.run(edit()) == expected


def test_what_is_wrong_is_an_error(client: Client) -> None:
    for one in (RED, "red.png"):
        with pytest.raises(TypeError, match="references is a list of pictures"):
            client.edit(PROMPT, references=one)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError) as refused:
        client.edit(PROMPT, references=[RED, BLUE], model="kontext")
    assert refused.value.errors[0].pointer == "#/references"
    with pytest.raises(InvalidRequestError) as refused:
        client.edit(PROMPT, references=[RED, b"no picture"], model="klein")
    assert refused.value.errors[0].pointer == "#/references/1"


# --- our command ---------------------------------------------------------------------------


def command(*arguments: str, given: bytes = b"", folder: Path, url: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "darkroom_client", *arguments],
        cwd=folder,
        input=given,
        capture_output=True,
        timeout=120,
        env={**os.environ, "DARKROOM_URL": url},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def test_the_command_edits(studio: RunningServer, expected: bytes, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(RED)
    options = ("-m", "klein", "--steps", "2", "--seed", "7", "-o", "out.png")
    two = ("--reference", "red.png", "-r", "-")

    made = command("edit", PROMPT, *two, *options, given=BLUE, folder=tmp_path, url=studio.url)

    assert made == ["out.png"]
    assert (tmp_path / "out.png").read_bytes() == expected


def test_a_row_of_a_batch_is_an_edit(
    studio: RunningServer, expected: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a red.png").write_bytes(RED)
    (tmp_path / "blue.png").write_bytes(BLUE)
    row = {"prompt": PROMPT, "references": ["a red.png", "blue.png"], "model": "klein", **FAST}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (tmp_path / "rows.csv").write_text(
        "prompt,references,model,num_inference_steps,seed\n"
        f"{PROMPT},a red.png; blue.png,klein,2,7\n"
    )

    for file in ("rows.jsonl", "rows.csv"):
        (made,) = command("batch", file, "-o", file[5:] + "/", folder=tmp_path, url=studio.url)
        assert (tmp_path / made).read_bytes() == expected


@pytest.mark.parametrize("references", ["red.png", 7, ["red.png", 7]])
def test_a_row_without_a_list_of_pictures_is_named(references: Any) -> None:
    with pytest.raises(ValueError, match="line 1: references"):
        batch.read(json.dumps({"prompt": PROMPT, "references": references}))


# --- OpenAI's SDK --------------------------------------------------------------------------


def test_openais_edits_take_all_pictures(ai: openai.OpenAI, expected: bytes) -> None:
    raw = ai.images.with_raw_response.edit(
        model="klein",
        image=[("red.png", RED), ("blue.png", BLUE)],
        prompt=PROMPT,
        extra_body=FAST,
    )

    assert "x-ignored-fields" not in raw.headers
    (picture,) = raw.parse().data or []
    assert base64.b64decode(picture.b64_json or "") == expected


def test_one_picture_is_edited_too_and_strength_has_no_effect(
    studio: RunningServer, ai: openai.OpenAI
) -> None:
    raw = ai.images.with_raw_response.edit(
        model="kontext",
        image=("red.png", RED),
        prompt=PROMPT,
        input_fidelity="high",
        extra_body={**FAST, "strength": 0.3},
    )

    assert set(raw.headers["x-ignored-fields"].split(", ")) == {"input_fidelity", "strength"}
    (picture,) = raw.parse().data or []
    assert base64.b64decode(picture.b64_json or "") == of(studio.http, "kontext", RED)


def test_pictures_as_json_text_are_edited(studio: RunningServer, expected: bytes) -> None:
    image = [base64.b64encode(data).decode() for data in (RED, BLUE)]
    body = {"model": "klein", "prompt": PROMPT, "image": image, **FAST}

    answer = studio.http.post("/v1/images/edits", json=body)

    assert answer.status_code == 200, answer.text
    assert base64.b64decode(answer.json()["data"][0]["b64_json"]) == expected


def test_more_pictures_than_the_model_takes_are_a_bad_request(ai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="takes 1 picture") as refused:
        ai.images.edit(model="kontext", image=[("red.png", RED), ("blue.png", BLUE)], prompt=PROMPT)
    assert refused.value.param == "image"


def test_a_wrong_picture_is_a_bad_request(studio: RunningServer, ai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ai.images.edit(
            model="klein", image=[("red.png", RED), ("blue.png", b"no picture")], prompt=PROMPT
        )
    assert refused.value.param == "image"
    none = studio.http.post("/v1/images/edits", json={"model": "klein", "prompt": PROMPT})
    assert (none.status_code, none.json()["error"]["param"]) == (400, "image")


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # by OpenAI, not by us
def test_a_variation_is_an_edit_without_words(ai: openai.OpenAI) -> None:
    made = ai.images.create_variation(model="kontext", image=("red.png", RED), extra_body=FAST)

    assert len(made.data or []) == 1


# --- A1111's API ---------------------------------------------------------------------------


def test_a1111s_img2img_is_an_edit_on_a_model_that_edits(studio: RunningServer) -> None:
    red = base64.b64encode(RED).decode()
    body = {
        "prompt": PROMPT,
        "init_images": [red],
        "steps": 2,
        "seed": 7,
        "batch_size": 2,
        "width": 256,
        "height": 256,
        "cfg_scale": 1,
        "denoising_strength": 0.4,
        "override_settings": {"sd_model_checkpoint": "kontext"},
    }

    answer = studio.http.post("/sdapi/v1/img2img", json=body)

    assert answer.status_code == 200, answer.text
    assert len(answer.json()["images"]) == 2
    assert "denoising_strength" in answer.headers["x-ignored-fields"]
    job = studio.http.get("/jobs").json()["jobs"][0]
    assert (job["task"], len(job["request"]["references"])) == ("edit", 1)


# --- an assistant --------------------------------------------------------------------------


def test_an_assistant_edits(studio: RunningServer, expected: bytes) -> None:
    async def talk() -> list[Image.Image]:
        async with Assistant(over_stdio(studio)) as client:
            references = [base64.b64encode(data).decode() for data in (RED, BLUE)]
            asked = {"prompt": PROMPT, "references": references, "model": "klein", **FAST}
            return pictures(await client.call_tool("edit", asked))

    (picture,) = asyncio.run(talk())
    assert picture.tobytes() == pixels(expected)
