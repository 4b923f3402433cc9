"""docs/benchmarks.md, written from what was measured."""

import platform
import re
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
`make bench ARGS=--write` writes this page, and `make bench ARGS="--only workers --write"` one
section. Compared values were measured in one run on one machine, in alternating turns (ours,
baseline, baseline, ours …), and each ratio is of one turn. The tables show medians and the range
over all counted turns. `make bench` fails if a figure is beyond its limit; the aim is the goal."""

HEADER = """\
| what | median | range | runs | limit | aim |
|---|---|---|---|---|---|"""

NOT_HERE = "Not measured: this machine has no GPU."


TITLE = re.compile(r"^## (.*)$", re.MULTILINE)


def updated(page: str, measured: Sequence[tuple[Suite, list[Figure]]], titles: list[str]) -> str:
    """The page with the sections of these suites written anew, in the order of all titles.

    What this machine cannot measure stays as it was. Sections without one of the titles are left
    out.
    """
    _, *parts = TITLE.split(page)
    sections = {
        title: f"## {title}\n\n{text.strip()}"
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }
    where = f"Darkroom {darkroom.__version__}, {datetime.now(UTC):%Y-%m-%d}, on {machine()}."
    sections |= {
        suite.title: f"{section(suite, figures)}\n\n{where}"
        for suite, figures in measured
        if figures or suite.title not in sections
    }
    known = [sections[title] for title in titles if title in sections]
    return "\n\n".join(["# Benchmarks", INTRODUCTION, *known]) + "\n"


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
