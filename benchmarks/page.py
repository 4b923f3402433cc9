"""docs/benchmarks.md, written from what was measured."""

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import diffusers
import psutil
import torch

import darkroom
from benchmarks.figure import Figure
from benchmarks.suite import Suite

INTRODUCTION = """\
`make bench ARGS=--write` writes this page. Compared values were measured in one run on one machine,
in alternating turns (ours, baseline, baseline, ours …), and each ratio is of one turn. The table
shows medians and the range over all counted turns. `make bench` fails if a figure is beyond its
limit; the aim is the goal."""

HEADER = """\
| what | median | range | runs | limit | aim |
|---|---|---|---|---|---|"""

NOT_HERE = "Not measured: this machine has no GPU."


def render(measured: Sequence[tuple[Suite, list[Figure]]]) -> str:
    """The page, a section a suite."""
    return (
        "\n\n".join(
            [
                "# Benchmarks",
                INTRODUCTION,
                f"Darkroom {darkroom.__version__}, {datetime.now(UTC):%Y-%m-%d}, on {machine()}.",
                *(section(suite, figures) for suite, figures in measured),
                "",
            ]
        ).rstrip()
        + "\n"
    )


def section(suite: Suite, figures: list[Figure]) -> str:
    """Its title, how it was measured, and its table."""
    table = "\n".join([HEADER, *(figure.row() for figure in figures)]) if figures else NOT_HERE
    return f"## {suite.title}\n\n{suite.how}\n\n{table}"


def machine() -> str:
    """What it ran on, in a line."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{psutil.cpu_count()} cores ({cpu}), {memory:.0f} GiB, {gpu}, "
        f"Python {platform.python_version()}, torch {torch.__version__} "
        f"({torch.get_num_threads()} threads), diffusers {diffusers.__version__}"
    )
