"""The real engine on the embedded model, and stock diffusers to compare it with."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.flux import pipeline_flux_kontext
from diffusers.pipelines.qwenimage import (
    pipeline_qwenimage_edit,
    pipeline_qwenimage_edit_inpaint,
    pipeline_qwenimage_edit_plus,
)
from PIL import Image, ImageDraw

from darkroom.catalog.models import ModelCatalog
from darkroom.config import EngineSettings, Settings
from darkroom.engine import costs
from darkroom.engine.base import EngineEvent, EngineJob, Failed, ImageReady
from darkroom.engine.engine import DiffusersEngine, from_settings
from darkroom.requests import RESOLVED, Task, Txt2Img
from tests.effort import DEVICE
from tests.engine import tiny


@pytest.fixture(autouse=True, scope="module")
def _short_measurements() -> Iterator[None]:
    """Measures calls once. Repeating them takes a second of each model that a test loads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "REPEATING_S", 0.0)
        yield


@pytest.fixture(autouse=True, scope="session")
def _full_precision() -> None:
    """Products in float32 on a GPU too, where convolutions would take fewer bits (TF32)."""
    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> ModelCatalog:
    """Of tintype alone."""
    return ModelCatalog(tmp_path_factory.mktemp("data") / "models", "tintype")


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> DiffusersEngine:
    return make_engine(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def source(photo: Path) -> Image.Image:
    """A photograph at the model's own size."""
    with Image.open(photo) as opened:
        return opened.convert("RGB").resize((128, 128), Image.Resampling.LANCZOS)


@pytest.fixture(scope="session")
def source_mask() -> Image.Image:
    mask = Image.new("L", (128, 128), 0)
    ImageDraw.Draw(mask).ellipse((30, 30, 100, 90), fill=255)
    return mask


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model's folder by its name, built once."""
    root = tmp_path_factory.mktemp("built")

    def build(name: str) -> Path:
        folder = root / name
        return folder if folder.is_dir() else tiny.BUILDERS[name](folder)

    return build


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """An empty data folder."""
    for name in ("models", "vae", "configs"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the pipelines reduce references to 128×128 pixels instead of a megapixel.

    Encoding that takes most of a tiny model's time.
    """
    small = [(128, 128), (160, 96), (96, 160)]
    monkeypatch.setattr(pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", small)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", 128 * 128)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", 128 * 128)
    dimensions = pipeline_qwenimage_edit.calculate_dimensions
    for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_inpaint):
        monkeypatch.setattr(
            module, "calculate_dimensions", lambda area, ratio: dimensions(area // 64, ratio)
        )


def make_engine(
    data_dir: Path, clock: Callable[[], float] = time.monotonic, **settings: Any
) -> DiffusersEngine:
    """An engine in float32, with what lies in a data folder and with tintype."""
    chosen = EngineSettings(**{"device": DEVICE, "dtype": "float32", **settings})
    return from_settings(Settings(data_dir=data_dir, engine=chosen), clock)


def request(task: Task = Task.TXT2IMG, **fields: Any) -> Txt2Img:
    """A resolved request with small numbers."""
    values: dict[str, Any] = {
        "model": "tintype",
        "prompt": "a red fox",
        "negative_prompt": "a blue house",
        "width": 128,
        "height": 128,
        "num_inference_steps": 6,
        "guidance_scale": 3.0,
        "num_images": 1,
        "seed": 7,
        "scheduler": "ddim",
    }
    if task in (Task.IMG2IMG, Task.INPAINT):
        values |= {"image": "image:x", "strength": 0.7}
    if task is Task.INPAINT:
        values |= {"mask_image": "image:y", "keep_unmasked": False}
    if task is Task.EDIT:
        values |= {"references": ("image:x",)}
    resolved = RESOLVED[task](**values | fields)
    assert isinstance(resolved, Txt2Img)
    return resolved


def run(engine: DiffusersEngine, *jobs: EngineJob) -> list[EngineEvent]:
    """Every event of these jobs, worked on together."""
    for job in jobs:
        engine.submit(job)
    events: list[EngineEvent] = []
    while engine.in_flight():
        events += engine.tick()
    return events


def developed(events: list[EngineEvent], job_id: str = "job") -> list[Image.Image]:
    """The pictures of one job by their index, whichever was ready first; a broken one fails."""
    broken = [event for event in events if isinstance(event, Failed)]
    assert not broken, broken
    ready = [e for e in events if isinstance(e, ImageReady) and e.job_id == job_id]
    return [event.picture for event in sorted(ready, key=lambda event: event.index)]
