"""`python -m benchmarks`: measure, print, and with `--write` record."""

import argparse
import platform
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

import darkroom
from benchmarks import engine, serving

PAGE = Path("docs/benchmarks.md")


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
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    arguments = parser.parse_args()
    figures = [*serving.measure(), *engine.measure()]
    page = "\n".join(
        [
            "# Benchmarks",
            "",
            "Written by `make bench ARGS=--write`. Medians, with the range over all counted runs.",
            "Memory is the process and its children, shared pages counted once.",
            "",
            f"Darkroom {darkroom.__version__}, {datetime.now(UTC):%Y-%m-%d}, on {machine()}.",
            "",
            "| what | median | range | runs | held against |",
            "|---|---|---|---|---|",
            *(figure.row() for figure in figures),
            "",
        ]
    )
    print(page)
    if arguments.write:
        PAGE.write_text(page)
    missed = [figure.name for figure in figures if figure.limit and figure.median >= figure.limit]
    if missed:
        raise SystemExit(f"over the limit: {', '.join(missed)}")


if __name__ == "__main__":
    main()
