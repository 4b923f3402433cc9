"""What tests share: one real server for all that only use it, pictures to send."""

import fcntl
import gc
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from darkroom.storage import database
from darkroom.storage.database import Database, Place
from tests import postgres, programs, s3
from tests.receiver import allowing
from tests.serving import RunningServer, running

DATA = Path(__file__).parent / "data"
PORTS = 12  # more than any test needs: what is allowed is fixed when a server starts

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
def ports() -> Iterator[list[int]]:
    """On which programs of a test may be told of jobs' ends, of the shared server too.

    They are held, so that nobody else gets one; a program may listen on them all the same.
    """
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(PORTS)]
        for holding in sockets:
            holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holding.bind(("127.0.0.1", 0))
        yield [holding.getsockname()[1] for holding in sockets]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, ports: list[int]) -> Iterator[RunningServer]:
    """A server with web and worker. Tests that kill or configure one start their own.

    Starting one takes ten seconds and more, so it has what tests can share: it logs JSON, and may
    tell of jobs' ends.
    """
    folder = tmp_path_factory.mktemp("server")
    with running(folder, **allowing(ports), DARKROOM_LOG_FORMAT="json") as started:
        yield started


@pytest.fixture(scope="session")
def idle_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose queue nobody works on: what is queued stays queued.

    Its streams show signs of life twice a second, so that nobody waits long for one.
    """
    folder = tmp_path_factory.mktemp("idle")
    with running(folder, process="web", DARKROOM_WEB__HEARTBEAT_S="0.5") as started:
        yield started


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the newest schema and nothing in it, to be copied: migrating takes longer."""
    path = tmp_path_factory.mktemp("empty") / "darkroom.db"
    database.migrate(path)
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A PostgreSQL server of this run's own."""
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def another_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Place]]:
    """Makes empty databases of each kind."""
    if request.param == "sqlite":
        empty, numbers = request.getfixturevalue("empty_database"), count(1)
        yield lambda: Path(shutil.copy(empty, tmp_path / f"{next(numbers)}.db"))
        return
    server, made = request.getfixturevalue("postgres_server"), []

    def make() -> Place:
        made.append(server.migrated())
        return made[-1]

    yield make
    for url in made:
        server.drop(url)


@pytest.fixture
def place(another_place: Callable[[], Place]) -> Place:
    """An empty database of each kind."""
    return another_place()


@pytest.fixture
def opened(place: Place) -> Iterator[Database]:
    opened = Database(place)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.Server]:
    """An S3 server of this run's own."""
    with s3.running() as server:
        yield server


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
