"""Commands find the server that runs, whatever folder they are run in."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.effort import sampled
from tests.serving import RunningServer, running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a user who runs no other server."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def found(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("found")
    with running(folder / "its data", process="web", XDG_STATE_HOME=str(home)) as started:
        yield started


def run_in(folder: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "darkroom", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "XDG_STATE_HOME": str(home)},
        check=False,
    )


def test_pair_finds_folder_and_port(found: RunningServer, home: Path, tmp_path: Path) -> None:
    printed = run_in(tmp_path, home, "pair").stdout

    assert f"{found.url}/#pair=" in printed
    (code,) = re.findall(r"^Code: (\S+)$", printed, re.MULTILINE)
    with httpx2.Client(base_url=found.url) as phone:
        assert phone.post("/pair", json={"code": code, "name": "phone"}).status_code == 200
    assert list(tmp_path.iterdir()) == []


def test_the_folder_alone_says_the_port(found: RunningServer, tmp_path: Path) -> None:
    """As for a server of another user."""
    printed = run_in(tmp_path, tmp_path, "pair", "--data-dir", str(found.data_dir)).stdout

    assert f"{found.url}/#pair=" in printed


@pytest.mark.slow
def test_tokens_are_those_of_the_server(found: RunningServer, home: Path, tmp_path: Path) -> None:
    secret = run_in(tmp_path, home, "token", "create", "laptop").stdout.strip()
    headers = {"authorization": f"Bearer {secret}"}

    assert httpx2.get(f"{found.url}/me", headers=headers).json()["name"] == "laptop"
    assert "laptop" in run_in(tmp_path, home, "token", "list").stdout
    assert run_in(tmp_path, home, "token", "revoke", "laptop").returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_doctor_checks_the_server_that_runs(
    found: RunningServer, home: Path, tmp_path: Path
) -> None:
    told = run_in(tmp_path, home, "doctor").stdout

    assert f":{httpx2.URL(found.url).port} is held by this server" in told
    assert str(found.data_dir) in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", sampled([["pair"], ["token", "create", "x"], ["token", "list"]])
)
def test_without_a_server_nothing_is_made(tmp_path: Path, command: list[str]) -> None:
    result = run_in(tmp_path, tmp_path / "state", *command)
    named = run_in(tmp_path, tmp_path / "state", *command, "--data-dir", "elsewhere")

    for ended in (result, named):
        assert ended.returncode == 1
        assert "no server runs here" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_several_servers_are_named(found: RunningServer, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "another"
    with running(other, process="web", XDG_STATE_HOME=str(home)):
        result = run_in(tmp_path, home, "pair")

    assert result.returncode == 1
    assert str(found.data_dir) in result.stderr
    assert str(other) in result.stderr


@pytest.mark.slow
def test_a_server_that_was_killed_is_none(home: Path, tmp_path: Path) -> None:
    """Its address is still in the folder; its lock is free."""
    with running(tmp_path / "data", process="web", XDG_STATE_HOME=str(home)) as server:
        server.process.kill()
        server.process.wait()
        assert (tmp_path / "data" / "web.address").exists()
        again = run_in(tmp_path, tmp_path / "state", "pair")

    assert again.returncode == 0  # offline, by the data in this folder
    assert ":7860/#pair=" in again.stdout
