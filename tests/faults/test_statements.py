"""The plug is pulled between any two statements: nothing is half there, everything goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STRIDE = 1 if os.environ.get("DARKROOM_SOAK") == "1" else 7


@pytest.mark.parametrize(
    ("operation", "at_least"), [("accept", 250), ("claim", 60), ("finish", 180), ("recover", 130)]
)
def test_killed_between_any_two_statements(tmp_path: Path, operation: str, at_least: int) -> None:
    """Every seventh point here; all of them with DARKROOM_SOAK=1. `plug` says what is checked."""
    plug = subprocess.run(
        [sys.executable, "-m", "tests.faults.plug", tmp_path, operation, str(STRIDE)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert plug.returncode == 0, plug.stderr
    assert int(plug.stdout) >= at_least // STRIDE
