"""Our sampling loop against the stock diffusers pipeline called in a loop, in turns, in one run."""

import tempfile
import time
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from benchmarks.figure import Figure
from darkroom.catalog.models import ModelCatalog
from darkroom.config import EngineSettings
from darkroom.engine.base import EngineJob
from darkroom.engine.engine import DiffusersEngine
from darkroom.schemas import ResolvedRequest, Task

RUNS = 9
STEPS = 20


def measure() -> list[Figure]:
    """Ratios of our time to stock's, for one picture and for four of one job."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = ModelCatalog(Path(folder), "tintype")
        engine = DiffusersEngine(catalog, EngineSettings(dtype="float32"))
        engine.warm_up()
        stock = StableDiffusionPipeline.from_pretrained(
            catalog.find(None).path,
            dtype=torch.float32,
            safety_checker=None,
            requires_safety_checker=False,
        ).to(engine.device)
        stock.set_progress_bar_config(disable=True)
        return [_against(engine, stock, images) for images in (1, 4)]


def _against(engine: DiffusersEngine, stock: StableDiffusionPipeline, images: int) -> Figure:
    ratios = []
    for run in range(RUNS + 1):
        ours = _ours(engine, images)
        ratio = ours / _stock(stock, images)
        if run:  # the first one warms up
            ratios.append(ratio)
    name = f"time of our loop ÷ stock pipeline in a loop, {images} image(s), {STEPS} steps"
    return Figure(name, tuple(ratios), "×")


def _ours(engine: DiffusersEngine, images: int) -> float:
    request = ResolvedRequest(
        task=Task.TXT2IMG,
        model="tintype",
        prompt="a red fox",
        negative_prompt="",
        width=128,
        height=128,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        num_images=images,
        seed=7,
        scheduler="ddim",
    )
    began = time.perf_counter()
    engine.submit(EngineJob("bench", request))
    while engine.in_flight():
        engine.tick()
    return time.perf_counter() - began


def _stock(stock: StableDiffusionPipeline, images: int) -> float:
    began = time.perf_counter()
    for image in range(images):
        stock(
            "a red fox",
            num_inference_steps=STEPS,
            guidance_scale=3.0,
            generator=torch.Generator("cpu").manual_seed(7 + image),
        )
    return time.perf_counter() - began
