"""A model of Stable Diffusion 1.5's size on the CPU: ours against the stock pipeline."""

import tempfile
from pathlib import Path
from statistics import median

from benchmarks.figure import Figure, at_most, ratios
from benchmarks.geometry import SD15, write_apart
from benchmarks.suite import Effort, Suite, order
from benchmarks.turn import Turn

SIDE, STEPS = 256, 4

HOW = f"""\
The shapes of Stable Diffusion 1.5 (UNet of 860 M parameters, CLIP-L, its VAE) with random weights,
fp32, on the CPU: one picture of {SIDE}×{SIDE} in {STEPS} steps with guidance. Darkroom's engine and
the stock pipeline in turns. Each turn is a new process that loads the model, warms up with one step
and then makes its pictures, so that only one model is in memory. The two medians of each turn are
divided."""


def measure(effort: Effort) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        write_apart(SD15, Path(folder))
        ours, stock = (
            Turn(name, folder, SD15.name, SIDE, STEPS, repeats=effort.large_pictures)
            for name in ("ours", "stock")
        )
        seconds: dict[Turn, list[float]] = {ours: [], stock: []}
        for number in range(effort.large_turns):
            for turn in order((ours, stock), number):
                seconds[turn].append(median(turn.take()[1]))
    our_times, stock_times = tuple(seconds[ours]), tuple(seconds[stock])
    name = f"SD 1.5 geometry, {SIDE}×{SIDE}, {STEPS} steps"
    return [
        Figure(
            f"time of our engine ÷ stock pipeline, {name}",
            ratios(our_times, stock_times),
            "×",
            at_most(1.03),
            at_most(0.8),
        ),
        Figure(f"{name}, ours", our_times, "s"),
        Figure(f"{name}, stock pipeline", stock_times, "s"),
    ]


SUITE = Suite("sd15", "Stable Diffusion 1.5 on a CPU", HOW, measure)
