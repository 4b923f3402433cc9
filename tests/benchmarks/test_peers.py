"""Other programs are drawn beside, and those that are not there are named."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import servers, stock
from benchmarks.__main__ import SUITES
from benchmarks.geometry import TINY
from benchmarks.peers.contestant import Contestant, Shape, Weights
from benchmarks.peers.diffusers_servers import WITHOUT_BFLOAT16
from benchmarks.peers.suite import compare, contestants
from benchmarks.servers import Server
from benchmarks.suite import Suite
from darkroom.engine import cpu

SHAPE = Shape(64, 2)


def not_run(every: list[Contestant]) -> dict[str, str]:
    figures = compare(every, TINY, [SHAPE], clients=2, turns=1, pictures=1)
    return {figure.name: figure.why_not for figure in figures if not figure.values}


@pytest.mark.parametrize("folder", [None, Path("nothing-is-here")])
def test_a_program_that_is_not_there_is_named_with_what_it_lacks(folder: Path | None) -> None:
    every = [replace(each, missing=each.missing or "left out") for each in contestants(folder)]
    able = stock.pick_device() != "cpu" or cpu.multiplies_bfloat16()
    without = "" if able else WITHOUT_BFLOAT16

    assert not_run(every) == {
        "Darkroom": "left out",
        "Darkroom with OpenVINO": "left out",
        "Darkroom in bfloat16": without or "left out",
        "Darkroom with OpenVINO in bfloat16": without or "left out",
        "diffusers behind a lock": "left out",
        "OpenVINO GenAI": "no virtual environment `openvino` with optimum-intel",
        "ComfyUI": "no folder `ComfyUI`",
        "stable-diffusion.cpp": "no program `sd-server`",
    }


def test_only_its_name_measures_it() -> None:
    usual: list[Suite] = [suite for suite in SUITES.values() if not suite.by_name]

    assert SUITES["peers"] not in usual
    assert SUITES["sd15"] in usual


@pytest.mark.slow
def test_what_is_installed_draws_and_what_breaks_is_named() -> None:
    named = {each.name: each for each in contestants(None)}
    ours, theirs = named["Darkroom"], named["diffusers behind a lock"]

    @contextmanager
    def serve(_: Weights) -> Iterator[Server]:
        with servers.baseline("--model", "nothing-is-here") as server:
            server.until("/healthz")
            yield server

    broken = replace(theirs, name="broken", serve=serve)

    figures = compare([ours, theirs, broken], TINY, [SHAPE], clients=2, turns=1, pictures=1)

    *measured, last = figures
    assert [(figure.name, len(figure.values)) for figure in measured] == [
        ("64×64, 2 steps, alone: Darkroom", 1),
        ("64×64, 2 steps, alone: diffusers behind a lock", 1),
        ("64×64, 2 steps, alone: diffusers behind a lock ÷ Darkroom", 1),
        ("64×64, 2 steps, 2 at once: Darkroom", 1),
        ("64×64, 2 steps, 2 at once: diffusers behind a lock", 1),
        ("64×64, 2 steps, 2 at once: diffusers behind a lock ÷ Darkroom", 1),
    ]
    assert all(value > 0 for figure in measured for value in figure.values)
    assert last.row().startswith("| broken | not run: it broke at 64×64, 2 steps: ")
    assert "Worker failed to boot" in last.why_not
