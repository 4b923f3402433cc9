"""The check of a GPU, tried on the CPU with small shapes, which is what it does without one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_check
from benchmarks.servers import ROOT


def check(out: Path, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Run it; its exit status and results."""
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--out", str(out), *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    results: list[dict[str, Any]] = json.loads((out / "results.json").read_text())
    assert all(result["name"] in (out / "results.md").read_text() for result in results)
    return ended.returncode, results


def test_a_part_that_fails_is_told_with_the_end_of_its_output(tmp_path: Path) -> None:
    result = gpu_check.run("broken", ("-c", "raise SystemExit('this is why')"), tmp_path, 60)

    assert (result.outcome, result.lines) == ("failed", ("this is why",))


def test_what_runs_past_the_budget_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "LEAST_S", 0)
    endless = "print('= begun', flush=True)\nwhile True: pass"

    result = gpu_check.run("endless", ("-c", endless), tmp_path, 1)

    assert (result.outcome, result.lines) == ("out of time", ("begun",))


def test_no_part_begins_without_time(tmp_path: Path) -> None:
    result = gpu_check.run("late", ("-c", "pass"), tmp_path, 1)

    assert result.outcome == "not run: no time left"


@pytest.mark.slow
def test_parts_run_alone(tmp_path: Path) -> None:
    status, results = check(tmp_path, "--only", "memory", "context")

    assert status == 0
    assert [result["name"] for result in results] == ["memory", "context"]


@pytest.mark.slow
def test_every_part_runs_or_says_why_not(tmp_path: Path) -> None:
    status, results = check(tmp_path)

    outcomes = {result["name"]: result["outcome"] for result in results}
    assert status == 0, results
    assert outcomes.pop("memory").startswith("not run")
    assert outcomes.pop("context").startswith("not run")
    assert outcomes == {"equality": "passed", "half": "passed", "tiny": "passed"}
    assert all("passed" in result["lines"][-1] for result in results if result["name"] == "half")
    assert any("ours, eager, 8 at once" in line for line in results[-1]["lines"])
