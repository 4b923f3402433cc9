"""What tests share: one real server for all that only use it, pictures to send."""

import fcntl
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests import programs
from tests.serving import RunningServer, running

DATA = Path(__file__).parent / "data"

# As a server does (`darkroom.cli.imports`): what is imported here stays to the end.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end which tests were skipped because a program is not installed."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = [report.longrepr[2] for report in skipped]
    for line in programs.summary(reasons):
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(autouse=True)
def _turn(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Keeps tests marked `alone` from running beside those of the run's other processes.

    Whoever wants the room to itself keeps the gate shut until it has it.
    """
    alone = request.node.get_closest_marker("alone") is not None
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own  # by a run's processes
    with (shared / "gate").open("w") as gate, (shared / "room").open("w") as room:
        fcntl.flock(gate, kind)
        fcntl.flock(room, kind)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with web and worker. Tests that kill or configure one start their own."""
    with running(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="session")
def idle_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose queue nobody works on: what is queued stays queued."""
    with running(tmp_path_factory.mktemp("idle"), process="web") as started:
        yield started


@pytest.fixture(scope="session")
def photo() -> Path:
    """A photograph of a cat, JPEG, 451×300."""
    return DATA / "photo.jpg"


@pytest.fixture(scope="session")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """White ellipse in the middle, PNG, the size of the photograph."""
    picture = Image.new("L", (451, 300), 0)
    ImageDraw.Draw(picture).ellipse((150, 75, 300, 225), fill=255)
    path = tmp_path_factory.mktemp("mask") / "mask.png"
    picture.save(path)
    return path
