"""How much a test does, and on what.

Little in `make test`, more in `make test-all`, most in `make soak`. The engine's tests compute on
the CPU, or where `DARKROOM_TEST_DEVICE` says.
"""

import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

LEVEL = os.environ.get("DARKROOM_TESTS", "daily")  # daily, all or soak
SOAK = LEVEL == "soak"
DEVICE = os.environ.get("DARKROOM_TEST_DEVICE", "cpu")  # as torch calls it


def amount(daily: int, everything: int, soak: int) -> int:
    """The number for this run."""
    return {"daily": daily, "all": everything, "soak": soak}[LEVEL]


def paired(first: Sequence[Any], second: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Each of the first with one of the second, in turns; with all of them in `make soak`."""
    if SOAK:
        return list(itertools.product(first, second))
    return list(zip(first, itertools.cycle(second)))


def sampled(cases: Iterable[Any], one_in: int | None = None, first: int = 0) -> list[Any]:
    """Cases as parameters, single values or tuples: the daily ones, and the others marked slow.

    One in so many is for every day; without a number, the first one alone.
    """
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=() if (number % one_in if one_in else number) == first else pytest.mark.slow,
        )
        for number, case in enumerate(cases)
    ]
