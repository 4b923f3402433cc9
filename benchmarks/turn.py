"""One side's turn in a process of its own, so that only one large model is in memory at a time.

python -m benchmarks.turn '{"contestant": "stock", "models_dir": …}'
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks import ours, stock
from benchmarks.servers import ROOT
from darkroom.config import EngineSettings
from darkroom.images.codec import encode
from darkroom.requests import OutputFormat


@dataclass(frozen=True)
class Turn:
    """What to time.

    Attributes:
        contestant: our engine, or the stock pipeline in a loop.
        models_dir: holds the folder `model`.
        model: its name.
        side: width and height in pixels.
        steps: denoising steps a picture.
        together: pictures asked for at once; the stock pipeline makes one after the other.
        repeats: how often each of `together` is timed.
        device: as torch calls it.
        dtype: as torch calls it.
        compiled: whether the UNet is compiled.
        encoded: whether each picture becomes a PNG as well: beside our engine's loop as in a
            server, after each call of the stock pipeline.
        guidance_scale: above 1, so that a picture takes two UNet rows.
    """

    contestant: Literal["ours", "stock"]
    models_dir: str
    model: str
    side: int
    steps: int
    together: tuple[int, ...] = (1,)
    repeats: int = 1
    device: str = "cpu"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    compiled: bool = False
    encoded: bool = False
    guidance_scale: float = 7.5

    def take(self) -> dict[int, list[float]]:
        """Seconds that each of `together` took, in a fresh process.

        Raises:
            subprocess.CalledProcessError: it failed; what it wrote is on standard error.
        """
        command = [sys.executable, "-m", "benchmarks.turn", json.dumps(asdict(self))]
        answer = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        times: dict[str, list[float]] = json.loads(answer.stdout.splitlines()[-1])
        return {int(count): seconds for count, seconds in times.items()}

    def run(self) -> dict[int, list[float]]:
        """The same in this process."""
        develop = _our_side(self) if self.contestant == "ours" else _stock_side(self)
        times: dict[int, list[float]] = {}
        for count in self.together:
            develop(count, 3 if self.compiled else 1)  # CUDA graphs are recorded at the second call
            times[count] = [develop(count, self.steps) for _ in range(self.repeats)]
        return times


def engine_can_compile() -> bool:
    """Whether this version's engine has the setting."""
    return "compile" in EngineSettings.model_fields


def _our_side(turn: Turn) -> Callable[[int, int], float]:
    """Seconds for so many jobs of so many steps, all in flight together."""
    options = {"compile": turn.compiled} if engine_can_compile() else {}
    settings = EngineSettings(device=turn.device, dtype=turn.dtype, **options)
    engine = ours.engine(settings, Path(turn.models_dir), turn.model)

    def develop(count: int, steps: int) -> float:
        jobs = [
            ours.request(
                model=turn.model,
                side=turn.side,
                steps=steps,
                guidance_scale=turn.guidance_scale,
                seed=stock.SEED + number,
            )
            for number in range(count)
        ]
        return ours.seconds(engine, jobs, encoded=turn.encoded)

    return develop


def _stock_side(turn: Turn) -> Callable[[int, int], float]:
    """Seconds for so many calls, compiled as diffusers' pages advise."""
    folder = Path(turn.models_dir) / turn.model
    pipeline = stock.load(folder, getattr(torch, turn.dtype), turn.device)
    if turn.compiled:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.unet.compile(mode="reduce-overhead", fullgraph=True)

    def develop(count: int, steps: int) -> float:
        began = time.perf_counter()
        pictures = stock.develop(
            pipeline, count, steps=steps, guidance_scale=turn.guidance_scale, side=turn.side
        )
        if turn.encoded:
            for picture in pictures:
                encode(picture, OutputFormat.PNG)
        return time.perf_counter() - began

    return develop


def main() -> None:
    print(json.dumps(Turn(**json.loads(sys.argv[1])).run()))


if __name__ == "__main__":
    main()
