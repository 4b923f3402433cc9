"""`python -m benchmarks.gpu_check`: whether the engine is right on this accelerator, and how fast.

For a machine that is lent for minutes, with torch and without a network. Each part is a process of
its own; what is known is written after each, and nothing goes on past the budget. Without a GPU the
same parts run with small shapes, which shows that the check itself works.

Without an installation, `PYTHONPATH=server:sdk:.` is enough, and these packages with what they
need: torch, transformers, accelerate, scipy, diffusers, peft, pydantic-settings, structlog,
greenlet, SQLAlchemy, Flask, gunicorn, httpx2, psutil, PyYAML, pytest and pytest-timeout.

| part | shows |
|---|---|
| equality | the engine's pictures equal stock diffusers' in float32, alone and in company (tests) |
| half | every family, task and setting once in half precision (tests) |
| memory | calls that really run out of memory are made smaller, and the limit recovers |
| context | a lost GPU context leaves the loop, so that the process ends and its jobs run again |
| sd15, sdxl | speed against stock diffusers, eager; with `-compiled` behind the name, compiled |
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from benchmarks import gpu, ours, page, stock
from benchmarks.geometry import GEOMETRIES, SD15, Geometry, write_apart
from benchmarks.servers import ROOT
from benchmarks.suite import QUICK
from benchmarks.turn import engine_can_compile
from darkroom.config import EngineSettings
from darkroom.engine.base import Failed, ImageReady, JobWarning
from darkroom.engine.engine import DiffusersEngine
from darkroom.engine.errors import Kind, classify
from darkroom.engine.memory import CALM_CALLS

MEGABYTE = 1 << 20
LEAST_S = 15  # what is left must be more, for another part to begin
STEPS = 4
JOBS = 8
# The machine may have other versions, whose warnings are no failures here.
PYTEST = (*("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"), "-W", "default")
EQUALITY = ("tests/engine/test_equality.py", "tests/engine/test_flow_equality.py")
HALF = ("tests/engine/test_half_precision.py",)
FEW = ("-m", "not slow", "-k", "alone and sd1 or half and sd1-txt2img")  # of the tests, on a CPU


class CheckFailedError(Exception):
    """The engine did not do what it should on this device."""


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise CheckFailedError(otherwise)


@dataclass(frozen=True)
class Result:
    """How a part ended.

    Attributes:
        name: of the part.
        outcome: `passed`, `failed`, `out of time`, or why it was not run.
        seconds: that it took.
        lines: what it found, or the end of what it wrote.
    """

    name: str
    outcome: str
    seconds: float
    lines: tuple[str, ...]


def device() -> str:
    """The accelerator's name for torch, or `cpu`."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found.type if found else "cpu"


# --- parts that run in this process ----------------------------------------------------------


def memory() -> list[str]:
    """Leave the engine less memory than eight pictures at once need, and more than one does.

    Raises:
        CheckFailedError: a picture is missing, nobody was told, or the limit stayed.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_apart(SD15, Path(folder))
        engine = ours.engine(
            EngineSettings(device=device(), dtype="float16"), Path(folder), SD15.name
        )
        one, many = _peak(engine, 1), _peak(engine, JOBS)
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((one + (many - one) / 3) / total)
        pictures, notes = _develop(engine, JOBS)
        require(pictures == JOBS, f"{pictures} of {JOBS} pictures")
        require(bool(notes), "it did not run out of memory, or did not say so")
        torch.cuda.set_per_process_memory_fraction(1.0)
        recovered = any(_peak(engine, JOBS) > 0.9 * many for _ in range(CALM_CALLS))
        require(recovered, "limits stayed after memory was there again")
    return [f"{one / MEGABYTE:.0f} MB for one, {many / MEGABYTE:.0f} MB for {JOBS}", *notes]


def _peak(engine: DiffusersEngine, jobs: int) -> int:
    """Bytes that so many pictures at once reserve at most."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    _develop(engine, jobs)
    return torch.cuda.max_memory_reserved()


def _develop(engine: DiffusersEngine, jobs: int) -> tuple[int, list[str]]:
    """So many jobs at once: the pictures that came, and what was noted."""
    asked = [
        ours.request(model=SD15.name, side=SD15.side, steps=STEPS, guidance_scale=7.5, seed=seed)
        for seed in range(jobs)
    ]
    events = list(ours.events(engine, asked))
    failed = [event for event in events if isinstance(event, Failed)]
    require(not failed, f"{failed}")
    pictures = sum(isinstance(event, ImageReady) for event in events)
    return pictures, sorted({e.note for e in events if isinstance(e, JobWarning)})


def context() -> list[str]:
    """Lose this process's GPU context by an index out of range.

    Raises:
        CheckFailedError: the error stayed in the loop, or is taken for another kind.
    """
    with tempfile.TemporaryDirectory() as folder:
        engine = ours.engine(EngineSettings(device=device(), dtype="float16"), Path(folder))
        ours.seconds(engine, [ours.request(steps=2, guidance_scale=3.0, side=128)])
        none = torch.zeros(1, device=device())
        none[torch.tensor([7], device=device())]
        try:
            ours.seconds(engine, [ours.request(steps=2, guidance_scale=3.0, side=128)])
        except Exception as error:
            kind = classify(error)
            require(kind is Kind.LOST_CONTEXT, f"taken for {kind}: {error}")
            return [f"{type(error).__name__}: {str(error).splitlines()[0]}"]
    raise CheckFailedError("pictures were made without a context")


def speed(geometry: Geometry, compiled: bool) -> list[str]:
    """Rows of figures, printed as they are measured."""
    stock.hush()
    peaks = gpu.ceiling(device())
    rows = [f"ceiling: {median(peaks):.1f} TFLOP/s"]
    with tempfile.TemporaryDirectory() as folder:
        write_apart(geometry, Path(folder))
        figures = gpu.measure_mode(geometry, Path(folder), device(), compiled, QUICK, median(peaks))
    return rows + [f"{figure.name}: {figure.median:.3g} {figure.unit}" for figure in figures]


def run_here(name: str) -> list[str]:
    """Run a part in this process."""
    if name in ("memory", "context"):
        parts: dict[str, Callable[[], list[str]]] = {"memory": memory, "context": context}
        return parts[name]()
    shapes, _, compiled = name.partition("-")
    return speed(GEOMETRIES[shapes], bool(compiled))


# --- all parts, one after the other ----------------------------------------------------------


def parts(small: bool) -> dict[str, tuple[str, ...]]:
    """Arguments of Python for each part, in order; empty if it cannot run here."""
    few = FEW if small else ("-m", "not slow")
    found: dict[str, tuple[str, ...]] = {
        "equality": (*PYTEST, *EQUALITY, *few),
        "half": (*PYTEST, *HALF, *(few if small else ())),
    }
    own = ("-m", "benchmarks.gpu_check", "--part")
    if small:
        return found | {"memory": (), "context": (), "tiny": (*own, "tiny")}
    for name in ("memory", "context", "sd15", "sdxl"):
        found[name] = (*own, name)
    compiling = ("sd15-compiled", "sdxl-compiled")
    return found | {name: (*own, name) if engine_can_compile() else () for name in compiling}


def run(name: str, command: tuple[str, ...], out: Path, left_s: float) -> Result:
    """Run a part in a process of its own, which is ended with all of its own when time is up."""
    if not command:
        return Result(name, "not run: this machine or version cannot", 0.0, ())
    if left_s < LEAST_S:
        return Result(name, "not run: no time left", 0.0, ())
    began = time.monotonic()
    log = out / f"{name}.log"
    environment = os.environ | {"DARKROOM_TEST_DEVICE": device()}
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            outcome = "failed" if process.wait(left_s) else "passed"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            outcome = "out of time"
    lines = log.read_text(errors="replace").splitlines()
    kept = tuple(line[2:] for line in lines if line.startswith("= ")) or tuple(lines[-15:])
    return Result(name, outcome, time.monotonic() - began, kept)


def write(results: list[Result], out: Path) -> None:
    """Write what is known so far, for people and for programs."""
    (out / "results.json").write_text(json.dumps([asdict(r) for r in results], indent=2) + "\n")
    rows = [f"| {r.name} | {r.outcome} | {r.seconds:.0f} |" for r in results]
    found = [f"### {r.name}\n\n```\n" + "\n".join(r.lines) + "\n```" for r in results if r.lines]
    table = "\n".join(["| part | outcome | s |", "|---|---|---|", *rows])
    text = "\n\n".join(["# GPU check", f"On {page.machine()}.", table, *found])
    (out / "results.md").write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu_check", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--budget-s", type=float, default=420, help="seconds for everything")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-check"), help="results")
    parser.add_argument("--only", nargs="+", metavar="PART", help="these parts alone")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # what `run` starts
    arguments = parser.parse_args()
    if arguments.part:
        for line in run_here(arguments.part):
            print(f"= {line}", flush=True)
        return
    began = time.monotonic()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for name, command in parts(small=device() == "cpu").items():
        if arguments.only and name not in arguments.only:
            continue
        left_s = arguments.budget_s - (time.monotonic() - began)
        results.append(run(name, command, out, left_s))
        write(results, out)
        print(f"{name}: {results[-1].outcome}, {results[-1].seconds:.0f} s", flush=True)
        for line in results[-1].lines:
            print(f"    {line}", flush=True)
    if any(result.outcome == "failed" for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
