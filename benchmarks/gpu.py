"""Models of real sizes on the GPU, eager and compiled, and how much of the chip they use."""

import functools
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Literal

import torch

from benchmarks.figure import Figure, ratios
from benchmarks.geometry import SD15, SDXL, Geometry, unet_flops, write_apart
from benchmarks.suite import Effort, Suite, order
from benchmarks.turn import Turn, engine_can_compile
from darkroom.catalog.models import ModelCatalog, UnknownModelError

Contestant = Literal["ours", "stock"]

STEPS = 20
TOGETHER = (1, 8)  # pictures at once
ROWS = 2  # of the UNet for a picture with guidance
MATRIX_SIDE = 8192  # large enough that the tensor cores are the limit
CPU_MATRIX_SIDE = 1024
MATRIX_RUNS = 20
TERA = 1e12


def how(geometry: Geometry) -> str:
    return f"""\
The shapes of {geometry.title} with random weights in fp16, {geometry.side}×{geometry.side}, {STEPS}
steps with guidance: one picture, and {TOGETHER[-1]} at once ({TOGETHER[-1]} jobs running together
in Darkroom; {TOGETHER[-1]} sequential calls of the stock pipeline). Eager, and with the UNet
compiled on both sides (stock: channels-last, `mode="reduce-overhead"`, `fullgraph=True`). In turns,
each in a new process, warmed up at the same shapes; the two medians of each turn are divided.
The time includes a PNG of each picture (ours encodes beside the loop). TFLOP/s are the UNet's
operations, counted by `torch.utils.flop_counter`, divided by the total time of the pictures,
including text encoder, VAE and PNG. The ceiling is a product of two fp16 matrices of
{MATRIX_SIDE}×{MATRIX_SIDE}, timed in the same run."""


def measure(geometry: Geometry, effort: Effort) -> list[Figure]:
    """No figures without a GPU."""
    if not torch.cuda.is_available():
        return []
    peaks = ceiling("cuda")
    figures = [Figure("ceiling: fp16 matrix product", peaks, "TFLOP/s")]
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        write_apart(geometry, Path(folder))
        for compiled in (False, True):
            figures += measure_mode(geometry, Path(folder), "cuda", compiled, effort, median(peaks))
    return figures


def ceiling(device: str) -> tuple[float, ...]:
    """TFLOP/s of a large matrix product, run by run: fp16 on a GPU, float32 on a CPU."""
    on_cpu = device == "cpu"
    side = CPU_MATRIX_SIDE if on_cpu else MATRIX_SIDE
    dtype = torch.float32 if on_cpu else torch.float16
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    wait = (lambda: None) if on_cpu else torch.accelerator.synchronize
    left @ right
    wait()
    rates = []
    for _ in range(MATRIX_RUNS):
        began = time.perf_counter()
        left @ right
        wait()
        rates.append(2 * side**3 / (time.perf_counter() - began) / TERA)
    return tuple(rates)


def measure_mode(
    geometry: Geometry, folder: Path, device: str, compiled: bool, effort: Effort, peak: float
) -> list[Figure]:
    """Both sides, eager or compiled.

    Args:
        geometry: of the model that lies in `folder`.
        device: as torch calls it.
        peak: TFLOP/s of the device.
    """
    times = _times(geometry, str(folder), device, compiled, effort)
    return _figures(geometry, "compiled" if compiled else "eager", times, peak)


def _times(
    geometry: Geometry, folder: str, device: str, compiled: bool, effort: Effort
) -> dict[Contestant, dict[int, tuple[float, ...]]]:
    """Seconds by contestant and number at once, a turn each.

    Ours is left out where this version does not serve the model, or cannot compile.
    """
    contestants: tuple[Contestant, ...] = ("stock",)
    if _served(geometry, folder) and (engine_can_compile() or not compiled):
        contestants = ("ours", "stock")
    taken: dict[Contestant, list[dict[int, list[float]]]] = {name: [] for name in contestants}
    for number in range(effort.large_turns):
        for contestant in order(contestants, number):
            turn = Turn(
                contestant,
                folder,
                geometry.name,
                geometry.side,
                STEPS,
                together=TOGETHER,
                repeats=effort.rounds,
                device=device,
                dtype="float32" if device == "cpu" else "float16",
                compiled=compiled,
                encoded=True,
            )
            taken[contestant].append(turn.take())
    return {
        contestant: {count: tuple(median(turn[count]) for turn in turns) for count in TOGETHER}
        for contestant, turns in taken.items()
    }


def _served(geometry: Geometry, folder: str) -> bool:
    try:
        ModelCatalog(Path(folder), geometry.name).find(geometry.name)
    except UnknownModelError:
        return False
    return True


def _figures(
    geometry: Geometry,
    mode: str,
    times: dict[Contestant, dict[int, tuple[float, ...]]],
    peak: float,
) -> list[Figure]:
    """Args: times from `_times`; peak in TFLOP/s."""
    picture = STEPS * unet_flops(geometry, geometry.side, ROWS) / TERA
    figures = []
    for count in TOGETHER:
        if "ours" in times:
            values = ratios(times["ours"][count], times["stock"][count])
            figures.append(Figure(f"time, ours ÷ stock, {mode}, {count} at once", values, "×"))
        for contestant, seconds in times.items():
            speeds = tuple(count / value for value in seconds[count])
            figures.append(Figure(f"{contestant}, {mode}, {count} at once", speeds, "images/s"))
            rates = tuple(count * picture / value for value in seconds[count])
            share = f"{median(rates) / peak:.0%} of the ceiling"
            name = f"UNet rate, {contestant}, {mode}, {count} at once: {share}"
            figures.append(Figure(name, rates, "TFLOP/s"))
    return figures


SUITES = tuple(
    Suite(
        f"gpu-{geometry.name}",
        f"{geometry.title} on a GPU",
        how(geometry),
        functools.partial(measure, geometry),
    )
    for geometry in (SD15, SDXL)
)
