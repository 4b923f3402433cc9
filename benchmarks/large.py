"""A model of Stable Diffusion 1.5's size on the CPU: ours against the stock pipeline."""

import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.figure import Figure, at_most, ratios
from benchmarks.geometry import SD15, write_apart
from benchmarks.suite import Effort, Suite, order
from benchmarks.turn import Turn
from darkroom.engine import cpu

SIDE, STEPS = 256, 4
BOUNDS = {
    "ours": (at_most(1.03), at_most(0.6)),
    "ours in bfloat16": (at_most(0.6), at_most(0.26)),
}

HOW = f"""\
The shapes of Stable Diffusion 1.5 (UNet of 860 M parameters, CLIP-L, its VAE) with random weights,
on the CPU: one picture of {SIDE}×{SIDE} in {STEPS} steps with guidance. Darkroom's engine and the
stock pipeline in fp32, and where the processor multiplies bfloat16, Darkroom's with `engine.dtype:
bfloat16` too, in turns. Each turn is a new process that loads the model, warms up with one step and
then makes its pictures, so that only one model is in memory. The medians of each turn are
divided."""


def measure(effort: Effort) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        write_apart(SD15, Path(folder))
        shape = (folder, SD15.name, SIDE, STEPS)
        repeats = effort.large_pictures
        stock, ours = (Turn(name, *shape, repeats=repeats) for name in ("stock", "ours"))
        turns = {"stock pipeline": stock, "ours": ours}
        if cpu.multiplies_bfloat16():
            turns["ours in bfloat16"] = replace(ours, dtype="bfloat16")
        seconds: dict[str, list[float]] = {name: [] for name in turns}
        for number in range(effort.large_turns):
            for name in order(tuple(turns), number):
                seconds[name].append(median(turns[name].take()[1]))
    shown = f"SD 1.5 geometry, {SIDE}×{SIDE}, {STEPS} steps"
    theirs = tuple(seconds["stock pipeline"])
    found = [
        Figure(
            f"{shown}: {name} ÷ stock pipeline",
            ratios(tuple(seconds[name]), theirs),
            "×",
            *BOUNDS[name],
        )
        for name in turns
        if name != "stock pipeline"
    ]
    return found + [Figure(f"{shown}: {name}", tuple(each), "s") for name, each in seconds.items()]


SUITE = Suite("sd15", "Stable Diffusion 1.5 on a CPU", HOW, measure)
