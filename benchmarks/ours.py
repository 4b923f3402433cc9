"""Our engine in this process, driven through its interface."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from benchmarks.stock import PROMPT, SEED
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog
from darkroom.catalog.upscalers import UpscalerCatalog
from darkroom.config import EngineSettings
from darkroom.engine.base import EngineEvent, EngineJob, Failed, Finished, ImageReady
from darkroom.engine.engine import DiffusersEngine
from darkroom.engine.model_manager import ModelManager
from darkroom.images.codec import encode
from darkroom.requests import OutputFormat, Txt2Img

TINTYPE = "tintype"


def engine(settings: EngineSettings, models_dir: Path, model: str = TINTYPE) -> DiffusersEngine:
    """An engine that has loaded nothing yet."""
    adapters = AdapterCatalog(models_dir / "loras", models_dir / "embeddings")  # there are none
    upscalers = UpscalerCatalog(models_dir.parent / "upscalers")
    catalog = ModelCatalog(models_dir, model)
    models = ModelManager(catalog, adapters, upscalers, settings, time.monotonic)
    return DiffusersEngine(models, settings)


def request(
    *,
    steps: int,
    guidance_scale: float,
    side: int,
    model: str = TINTYPE,
    images: int = 1,
    seed: int = SEED,
) -> Txt2Img:
    """What `stock.develop` makes, as our engine is asked for it."""
    return Txt2Img(
        model=model,
        prompt=PROMPT,
        negative_prompt="",
        width=side,
        height=side,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        num_images=images,
        seed=seed,
        scheduler="ddim",
    )


def seconds(
    engine: DiffusersEngine, requests: Sequence[Txt2Img], *, encoded: bool = False
) -> float:
    """How long these take, a job each, all in flight from the beginning.

    Args:
        encoded: until each picture is a PNG as well, made in a thread beside the engine's loop.

    Raises:
        RuntimeError: one of them broke.
    """
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as beside:
        for event in events(engine, requests):
            if isinstance(event, Failed):
                raise RuntimeError(f"{event.kind}: {event.detail}")
            if encoded and isinstance(event, ImageReady):
                beside.submit(encode, event.picture, OutputFormat.PNG)
    return time.perf_counter() - began


def picture(engine: DiffusersEngine, asked: Txt2Img) -> Image.Image:
    """The one picture of a request.

    Raises:
        RuntimeError: it broke.
    """
    made: list[Image.Image] = []
    for event in events(engine, [asked]):
        if isinstance(event, Failed):
            raise RuntimeError(f"{event.kind}: {event.detail}")
        if isinstance(event, ImageReady):
            made.append(event.picture)
    (only,) = made
    return only


def events(engine: DiffusersEngine, requests: Sequence[Txt2Img]) -> Iterator[EngineEvent]:
    """What becomes of these, a job each, all in flight from the beginning."""
    for number, asked in enumerate(requests):
        engine.submit(EngineJob(f"bench-{number}", asked))
    while engine.in_flight():
        yield from engine.tick()


def seconds_beside(engine: DiffusersEngine, asked: Txt2Img, others: Sequence[Txt2Img]) -> float:
    """How long one client's picture takes beside jobs of another client that came before.

    Raises:
        RuntimeError: it broke.
    """
    for number, other in enumerate(others):
        engine.submit(EngineJob(f"other-{number}", other, client="other"))
    engine.submit(EngineJob("own", asked, client="own"))
    began = time.perf_counter()
    try:
        while True:
            for event in engine.tick():
                if isinstance(event, Failed):
                    raise RuntimeError(f"{event.kind}: {event.detail}")
                if isinstance(event, Finished) and event.job_id == "own":
                    return time.perf_counter() - began
    finally:
        for number in range(len(others)):
            engine.cancel(f"other-{number}")
