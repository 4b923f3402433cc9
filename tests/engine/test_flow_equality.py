"""The stock pipelines of the transformer families: pictures to hold ours against.

For a tiny model of each, every task that it can do, guided, unguided and with a negative prompt.
The daily two are those whose calls are unlike the others': Z-Image's transformer takes lists, and
FLUX.2 klein shows its transformer the references as well.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers.pipelines.flux import pipeline_flux_kontext
from diffusers.pipelines.qwenimage import (
    pipeline_qwenimage_edit,
    pipeline_qwenimage_edit_plus,
)
from PIL import Image, ImageDraw

from darkroom.engine.base import EngineJob
from darkroom.requests import MODEL_TASKS, Task
from tests.conftest import DATA
from tests.engine import tiny
from tests.engine.conftest import request
from tests.engine.stock import FlowStock, difference
from tests.engine.tiny_families import BUILDERS

GUIDED = {"guidance_scale": 4.0, "negative_prompt": ""}
UNGUIDED = {"guidance_scale": 1.0, "negative_prompt": ""}
NEGATIVE = {"guidance_scale": 4.0, "negative_prompt": "a blue house"}
EVERY: dict[str, dict[str, Any]] = {"guided": GUIDED, "unguided": UNGUIDED, "negative": NEGATIVE}

# What each can do, and how it can be guided.
MODELS: dict[str, tuple[tuple[Task, ...], tuple[str, ...]]] = {
    "sd3": (MODEL_TASKS, tuple(EVERY)),
    "flux_dev": (MODEL_TASKS, tuple(EVERY)),
    "flux_schnell": (MODEL_TASKS, ("unguided", "negative")),
    "flux_kontext": ((Task.TXT2IMG, Task.EDIT), tuple(EVERY)),
    "chroma": ((Task.TXT2IMG,), tuple(EVERY)),
    "flux2_klein": ((Task.TXT2IMG, Task.EDIT), ("guided", "unguided")),
    "flux2_klein_distilled": ((Task.TXT2IMG, Task.EDIT), ("unguided",)),
    "z_image": (MODEL_TASKS, tuple(EVERY)),
    "z_image_turbo": (MODEL_TASKS, ("unguided",)),
    "qwen_image": (MODEL_TASKS, tuple(EVERY)),
    "qwen_image_edit": ((Task.EDIT,), tuple(EVERY)),
    "qwen_image_edit_plus": ((Task.EDIT,), tuple(EVERY)),
}
DAILY = ("z_image", "flux2_klein")


def each(*rows: Any) -> list[Any]:
    """Parameters that are a model or begin with one; slow but for two models."""
    made = []
    for row in rows:
        values = (row,) if isinstance(row, str) else row
        made.append(pytest.param(*values, marks=() if values[0] in DAILY else pytest.mark.slow))
    return made


EACH_TASK = each(*((model, task) for model, (tasks, _) in MODELS.items() for task in tasks))


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "models"
    for name in MODELS:
        BUILDERS[name](folder / name)
    return folder


@pytest.fixture(scope="module")
def stock(models_dir: Path) -> Callable[[str], FlowStock]:
    return functools.cache(lambda model: FlowStock(models_dir / model))


@pytest.fixture(autouse=True)
def _small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the pipelines reduce references to 128×128 pixels instead of a megapixel.

    Encoding that takes most of a tiny model's time.
    """
    small = [(128, 128), (160, 96), (96, 160)]
    monkeypatch.setattr(pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", small)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", 128 * 128)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", 128 * 128)
    dimensions = pipeline_qwenimage_edit.calculate_dimensions
    monkeypatch.setattr(
        pipeline_qwenimage_edit,
        "calculate_dimensions",
        lambda area, ratio: dimensions(area // 64, ratio),
    )


def picture(turned: int = 0, size: tuple[int, int] = (tiny.SIZE, tiny.SIZE)) -> Image.Image:
    """The photograph at that size, turned by that many degrees first."""
    with Image.open(DATA / "photo.jpg") as opened:
        return opened.convert("RGB").rotate(turned).resize(size, Image.Resampling.LANCZOS)


def job(
    model: str,
    task: Task = Task.TXT2IMG,
    name: str = "job",
    *,
    turns: tuple[int, ...] = (0,),
    **fields: Any,
) -> EngineJob:
    """A small job; `turns` are the degrees by which each of an edit's references is turned."""
    values: dict[str, Any] = {
        "model": model,
        "width": tiny.SIZE,
        "height": tiny.SIZE,
        "scheduler": "native",
        "num_inference_steps": 3,
        **GUIDED,
    }
    if task is Task.EDIT:
        values["references"] = tuple(f"image:{degrees}" for degrees in turns)
    asked = request(task, **values | fields)
    size = (asked.width, asked.height)
    if task is Task.EDIT:
        # Of other sizes than the picture, and than each other.
        shown = [picture(degrees, (64 + 16 * i, 80)) for i, degrees in enumerate(turns)]
        return EngineJob(name, asked, references=tuple(shown))
    if task is Task.TXT2IMG:
        return EngineJob(name, asked)
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse((size[0] // 4, 16, size[0] - 20, size[1] - 12), fill=255)
    return EngineJob(name, asked, picture(size=size), mask)


@pytest.mark.parametrize(("model", "task"), EACH_TASK)
def test_what_is_asked_makes_a_difference(
    stock: Callable[[str], FlowStock], model: str, task: Task
) -> None:
    """Else the equality of these tiny models' pictures would say little."""
    kinds = MODELS[model][1]
    asked = [job(model, task, **EVERY[kind]) for kind in kinds]
    asked.append(job(model, task, **EVERY[kinds[0]], prompt="a blue fox"))
    asked.append(job(model, task, **EVERY[kinds[0]], num_inference_steps=4))
    if task is Task.EDIT:
        asked.append(job(model, task, **EVERY[kinds[0]], turns=(180,)))

    pictures = [stock(model).picture(each) for each in asked]

    for number, one in enumerate(pictures):
        assert all(difference(one, other) > 4 for other in pictures[:number])
