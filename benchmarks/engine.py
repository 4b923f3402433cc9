"""Our sampling loop against the stock diffusers pipeline called in a loop."""

import tempfile
import time
from pathlib import Path

from benchmarks import ours, stock
from benchmarks.baseline import TINTYPE
from benchmarks.figure import Figure
from benchmarks.suite import Effort, Suite
from darkroom.config import EngineSettings

STEPS, GUIDANCE, SIDE = 20, 3.0, 128

HOW = """\
Darkroom's engine and the stock `StableDiffusionPipeline` in one process, on tintype, with the same
threads and dtype, in turns; the two times of each turn are divided. The first turn is a warm-up and
not counted. Several images are one job (`num_images`) for the engine, and one call each for the
pipeline."""


def measure(effort: Effort) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        engine = ours.engine(EngineSettings(dtype="float32"), Path(folder))
        engine.warm_up()
        pipeline = stock.load(TINTYPE, device=stock.pick_device())

        def ratio(images: int) -> float:
            asked = ours.request(steps=STEPS, guidance_scale=GUIDANCE, side=SIDE, images=images)
            seconds = ours.seconds(engine, [asked])
            began = time.perf_counter()
            stock.develop(pipeline, images, steps=STEPS, guidance_scale=GUIDANCE)
            return seconds / (time.perf_counter() - began)

        return [
            Figure(
                f"time of our loop ÷ stock pipeline in a loop, {images} image(s), {STEPS} steps",
                tuple(ratio(images) for _ in range(effort.pictures + 1))[1:],
                "×",
            )
            for images in (1, 4)
        ]


SUITE = Suite("engine", "The sampling loop", HOW, measure)
