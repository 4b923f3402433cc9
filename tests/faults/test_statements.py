"""A process is killed between any two statements: nothing is half written, all jobs go on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import postgres
from tests.effort import amount

ROOT = Path(__file__).parents[2]
STRIDE = amount(9, 9, 1)
SERVER_STRIDE = amount(41, 41, 1)  # a copy of a database there takes five times as long

OPERATIONS = pytest.mark.parametrize(
    ("operation", "at_least"), [("accept", 250), ("claim", 60), ("finish", 180), ("recover", 130)]
)


@pytest.mark.slow
@OPERATIONS
def test_killed_between_any_two_statements(tmp_path: Path, operation: str, at_least: int) -> None:
    """At every STRIDE-th point. `kill_points` has the checks."""
    assert deaths(tmp_path, operation, STRIDE) >= at_least // STRIDE


@pytest.mark.slow
@OPERATIONS
def test_killed_with_the_queue_on_a_database_server(
    tmp_path: Path, operation: str, at_least: int, postgres_server: postgres.Server
) -> None:
    url = postgres_server.url().render_as_string(hide_password=False)
    try:
        found = deaths(tmp_path, operation, SERVER_STRIDE, url)
    finally:
        for name in ("prepared", "rehearsal"):
            postgres_server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    assert found >= at_least // SERVER_STRIDE


def deaths(folder: Path, operation: str, stride: int, *url: str) -> int:
    command = [sys.executable, "-m", "tests.faults.kill_points", folder, operation, str(stride)]
    killed = subprocess.run([*command, *url], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == 0, killed.stderr
    return int(killed.stdout)
