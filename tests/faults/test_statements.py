"""A process is killed between any two statements: nothing is half written, all jobs go on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.effort import amount

ROOT = Path(__file__).parents[2]
STRIDE = amount(7, 5, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "at_least"), [("accept", 250), ("claim", 60), ("finish", 180), ("recover", 130)]
)
def test_killed_between_any_two_statements(tmp_path: Path, operation: str, at_least: int) -> None:
    """At every STRIDE-th point. `kill_points` has the checks."""
    killed = subprocess.run(
        [sys.executable, "-m", "tests.faults.kill_points", tmp_path, operation, str(STRIDE)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert killed.returncode == 0, killed.stderr
    assert int(killed.stdout) >= at_least // STRIDE
