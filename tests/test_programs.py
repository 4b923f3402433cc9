"""Without a program that tests run, those tests are skipped, and make says what it installs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import programs
from tests.programs import PACKAGES, SYSTEM

ROOT = Path(__file__).parent.parent
NEEDS_SYSTEMD = "tests/deployment/test_systemd.py"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The only folder on the PATH. It has every program, and an apt-get that writes to apt.log."""
    folder = tmp_path / "path"
    folder.mkdir()
    for name in PACKAGES:
        program(folder / name, "exit 1")
    program(folder / "apt-get", f'echo "$*" >> {tmp_path}/apt.log')
    return folder


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def prepare(path: Path, system: str) -> subprocess.CompletedProcess[str]:
    """What `make test` does first."""
    return subprocess.run(
        [sys.executable, "tests/programs.py", system],
        cwd=ROOT,
        env={**os.environ, "PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("system", ["yes", "no", "required"])
def test_nothing_is_said_or_done_if_nothing_is_missing(path: Path, system: str) -> None:
    done = prepare(path, system)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (path.parent / "apt.log").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_root_is_told_what_is_installed_and_only_that_is(path: Path) -> None:
    (path / "chromium").unlink()
    (path / "promtool").unlink()

    done = prepare(path, "yes")

    assert "Installing system packages as root, for tests: chromium prometheus\n" in done.stdout
    assert "make test SYSTEM=no" in done.stdout
    assert (path.parent / "apt.log").read_text().splitlines() == [
        "-qq update",
        "-qq install -y chromium",
        "-qq install -y --no-install-recommends prometheus",
    ]


def test_system_no_installs_nothing(path: Path) -> None:
    (path / "chromium").unlink()

    done = prepare(path, "no")

    assert (done.returncode, done.stdout) == (0, "")
    assert not (path.parent / "apt.log").exists()


def test_where_nothing_can_be_installed_it_says_what_is_skipped(path: Path) -> None:
    (path / "chromium").unlink()
    (path / "apt-get").unlink()  # as where the user is not root

    done = prepare(path, "yes")

    assert done.returncode == 0
    assert done.stdout == "Not installed: chromium. The tests that need them are skipped.\n"


def test_what_is_required_and_cannot_be_installed_ends_it(path: Path) -> None:
    (path / "chromium").unlink()
    (path / "apt-get").unlink()

    done = prepare(path, "required")

    assert done.returncode == 1
    assert done.stderr.endswith("on Debian: sudo apt-get install chromium\n")


def test_an_unknown_value_is_refused(path: Path) -> None:
    assert prepare(path, "maybe").returncode == 1


def pytest_without_systemd(tmp_path: Path, path: Path, system: str) -> tuple[int, str]:
    """Status and output of a run of tests that need systemd-analyze, and of some that do not."""
    (path / "systemd-analyze").unlink()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("--basetemp", tmp_path / "inner", NEEDS_SYSTEMD),
        ],
        cwd=ROOT,
        env={**os.environ, "PATH": str(path), SYSTEM: system},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_the_end_says_what_was_skipped_and_how_to_install_it(tmp_path: Path, path: Path) -> None:
    status, said = pytest_without_systemd(tmp_path, path, "no")

    assert status == 0, said
    assert "3 tests were skipped because programs are not installed: systemd-analyze (3).\n" in said
    assert "on Debian: sudo apt-get install systemd\n" in said
    assert " passed, 3 skipped" in said


@pytest.mark.slow
def test_nothing_is_skipped_where_programs_are_required(tmp_path: Path, path: Path) -> None:
    status, said = pytest_without_systemd(tmp_path, path, "required")

    assert status == 1
    assert "needs systemd-analyze, which is not installed" in said
    assert "3 failed" in said
    assert "skipped" not in said


@pytest.mark.parametrize(
    ("ci", "system", "outcome"),
    [
        ("true", "yes", pytest.fail.Exception),
        ("true", "no", pytest.skip.Exception),
        ("", "required", pytest.fail.Exception),
        ("", "yes", pytest.skip.Exception),
    ],
)
def test_a_missing_program_fails_in_ci_and_skips_elsewhere(
    ci: str, system: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv(SYSTEM, system)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(outcome, match="needs pg_createcluster, which is not installed"):
        programs.program("pg_createcluster")
