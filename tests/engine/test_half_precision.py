"""Every family, task and way to save memory once in half precision: pictures that are none of NaN.

On a GPU this is how the engine computes by itself. On a CPU it is bfloat16 and UNets alone: a CPU
without instructions for bfloat16 takes minutes for a transformer. Random weights amplify rounding,
so pictures are held against those in float32 by their mean difference alone.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

from darkroom.catalog.listing import EMBEDDED
from darkroom.engine.base import EngineJob
from darkroom.engine.engine import DiffusersEngine
from darkroom.requests import MODEL_TASKS, Task
from tests.conftest import DATA
from tests.effort import DEVICE
from tests.engine import lora_files, tiny, tiny_families
from tests.engine.conftest import developed, make_engine, request, run

DTYPE = "bfloat16" if DEVICE == "cpu" else "auto"
ALMOST = 32  # of 255, the mean over a picture; NaN is black, which is four times as far
UNETS: dict[str, tuple[Task, ...]] = {"sd1": MODEL_TASKS, "sdxl": MODEL_TASKS}
DAILY = (("sd1", Task.TXT2IMG),)
ON_GPU = DEVICE != "cpu"
LONG = () if ON_GPU else pytest.mark.slow


def cases() -> list[Any]:
    """A model and a task."""
    found = [(model, task) for model, tasks in UNETS.items() for task in tasks]
    families = tiny_families.MODELS.items() if ON_GPU else ()
    found += [(model, task) for model, (tasks, _) in families for task in tasks]
    return [pytest.param(*case, marks=() if case in DAILY else LONG) for case in found]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models are written when a test first asks for one."""
    return tmp_path_factory.mktemp("half")


@pytest.fixture(scope="module")
def half(data_dir: Path) -> DiffusersEngine:
    return make_engine(data_dir, dtype=DTYPE)


@pytest.fixture(scope="module")
def full(data_dir: Path) -> DiffusersEngine:
    return make_engine(data_dir)


def have(data_dir: Path, model: str) -> None:
    """Write a tiny model of that name, unless it is there."""
    folder = data_dir / "models" / model
    if not folder.exists():
        (tiny.BUILDERS | tiny_families.BUILDERS)[model](folder)


def job(model: str, task: Task = Task.TXT2IMG, **fields: Any) -> EngineJob:
    side = tiny.SIZE
    with Image.open(DATA / "photo.jpg") as opened:
        photo = opened.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).ellipse((10, 10, side - 10, side - 20), fill=255)
    values = {"model": model, "width": side, "height": side, "num_inference_steps": 2}
    if model in tiny_families.BUILDERS:
        values |= {"negative_prompt": "", "scheduler": "native"}
    image, references = (None, (photo,)) if task is Task.EDIT else (photo, ())
    asked = request(task, **values | fields)
    return EngineJob("job", asked, image, mask, references=references)


def assert_almost_equal(ours: Image.Image, wanted: Image.Image) -> None:
    one, other = (np.asarray(picture, np.int16) for picture in (ours, wanted))
    assert one.shape == other.shape
    assert np.abs(one - other).mean() <= ALMOST
    assert one.std() > 0  # NaN is black


@pytest.mark.parametrize(("model", "task"), cases())
def test_a_picture_in_half_precision_is_almost_the_one_in_full(
    model: str, task: Task, half: DiffusersEngine, full: DiffusersEngine, data_dir: Path
) -> None:
    have(data_dir, model)

    (ours,) = developed(run(half, job(model, task)))
    (wanted,) = developed(run(full, job(model, task)))

    assert_almost_equal(ours, wanted)


@pytest.mark.slow
def test_a_lora_in_half_precision(data_dir: Path) -> None:
    tintype = StableDiffusionPipeline.from_pretrained(
        EMBEDDED / "tintype", dtype=torch.float32, safety_checker=None
    )
    (data_dir / "loras").mkdir(exist_ok=True)
    lora_files.kohya(data_dir / "loras" / "ink.safetensors", lora_files.draw(tintype, seed=1))
    asked = job("tintype", loras=({"name": "ink", "scale": 1.0},))

    (ours,) = developed(run(make_engine(data_dir, dtype=DTYPE), asked))
    (wanted,) = developed(run(make_engine(data_dir), asked))

    assert_almost_equal(ours, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["model", "group"])
@pytest.mark.parametrize("model", ["sd1", "z_image"] if ON_GPU else ["sd1"])
def test_weights_that_wait_in_the_cpus_memory_in_half_precision(
    model: str, offload: str, half: DiffusersEngine, data_dir: Path
) -> None:
    have(data_dir, model)

    (ours,) = developed(run(make_engine(data_dir, dtype=DTYPE, offload=offload), job(model)))
    (wanted,) = developed(run(half, job(model)))

    assert_almost_equal(ours, wanted)


@pytest.mark.slow
def test_a_vae_in_tiles_in_half_precision(data_dir: Path, half: DiffusersEngine) -> None:
    have(data_dir, "sd1")
    large = {"width": 320, "height": 320}

    (ours,) = developed(
        run(make_engine(data_dir, dtype=DTYPE, vae_tile_side=256), job("sd1", **large))
    )
    (wanted,) = developed(run(half, job("sd1", **large)))

    assert_almost_equal(ours, wanted)
