"""Models and LoRAs of every kind behind one real server, and broken ones beside them."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from darkroom.catalog.listing import EMBEDDED
from tests.engine import lora_files, tiny
from tests.serving import RunningServer, running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("served")
    models, loras = folder / "models", folder / "loras"
    for name in ("sd1", "sdxl", "sdxl_inpaint", "sd3"):
        tiny.BUILDERS[name](models / name)
    (models / "torn.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    (models / "old.ckpt").write_bytes(b"pickle")
    (models / "empty").mkdir()
    loras.mkdir()
    tintype = StableDiffusionPipeline.from_pretrained(
        EMBEDDED / "tintype", dtype=torch.float32, safety_checker=None
    )
    lora_files.kohya(loras / "ink.safetensors", lora_files.draw(tintype, seed=1))
    (loras / "torn.safetensors").write_bytes(b"nothing")
    with running(folder) as started:
        yield started


def picture(server: RunningServer, **fields: Any) -> bytes:
    asked = {"prompt": "a red fox", "seed": 7, "num_inference_steps": 3, **fields}
    answer = server.http.post("/txt2img", json=asked, headers={"accept": "image/png"})
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.mark.parametrize("model", ["sd1", "sdxl", "sd3"])
def test_each_kind_of_model_develops_pictures(server: RunningServer, model: str) -> None:
    with Image.open(io.BytesIO(picture(server, model=model))) as made:
        assert made.size == (tiny.SIZE, tiny.SIZE)


def test_a_task_that_a_model_cannot_do_is_refused(server: RunningServer) -> None:
    answer = server.txt2img(model="sdxl_inpaint")

    assert answer.status_code == 422
    assert "inpaint" in answer.json()["errors"][0]["detail"]


def test_a_lora_changes_the_picture_and_leaves_no_trace(server: RunningServer) -> None:
    before = picture(server, exact=True)

    drawn = picture(server, exact=True, loras=[{"name": "ink", "scale": 1.5}])

    assert drawn != before
    assert picture(server, exact=True) == before


def test_a_lora_for_another_family_is_refused_by_name(server: RunningServer) -> None:
    answer = server.txt2img(model="sdxl", loras=[{"name": "ink"}])

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "#/loras/0/name"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "torn"),
        ("model", "old"),
        ("model", "empty"),
        ("loras", [{"name": "torn"}]),
    ],
    ids=str,
)
def test_what_is_broken_is_refused_by_name_and_the_rest_is_served(
    server: RunningServer, field: str, value: Any
) -> None:
    name = value if isinstance(value, str) else value[0]["name"]

    answer = server.txt2img(**{field: value})

    assert answer.status_code == 422
    assert name in answer.json()["errors"][0]["detail"]
    assert picture(server)


def test_weights_and_long_prompts_are_read(server: RunningServer) -> None:
    plain = picture(server, exact=True)

    assert picture(server, exact=True, prompt="a (red:1.4) fox") != plain
    assert picture(server, exact=True, prompt="a red fox, " + "in the snow, " * 40) != plain
