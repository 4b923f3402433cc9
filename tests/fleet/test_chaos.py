"""Two boxes, one queue, and everything that can die does. Every job gets its picture.

Each box is a network and process namespace of its own, with a worker that Ray starts. The pictures
have the bytes that they have without a disturbance.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import URL

from tests import postgres, s3
from tests.effort import SOAK, amount
from tests.fleet.boxes import Box, Bridge, Program, bridge, joining
from tests.fleet.caller import Caller, answers, patiently
from tests.fleet.conftest import OWNER, darkroom
from tests.serving import free_port
from tests.waiting import PATIENCE_S

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if SOAK else 1500)]

JOBS = amount(12, 24, 200)
CUT_S = 60.0 if SOAK else 25.0
STORE_AWAY_S = 10.0
PASSWORD = "of-the-tests"
SHARED = {
    "DARKROOM_QUEUE__LEASE_S": "8",
    "DARKROOM_QUEUE__MAX_ATTEMPTS": "10",  # deaths are ours, not the jobs' doing
    "DARKROOM_QUEUE__MAX_PENDING_PER_CLIENT": "1000",
    "DARKROOM_QUEUE__SHUTDOWN_TIMEOUT_S": "3",
    "DARKROOM_FLEET__MIN_WORKERS": "2",
    "DARKROOM_DISCOVERY__ENABLED": "false",
}


class Fleet:
    """The first box, two others, and what they share."""

    def __init__(
        self, folder: Path, network: Bridge, server: postgres.Server, store: s3.Server
    ) -> None:
        self.folder, self.network, self.postgres, self.store = folder, network, server, store
        server.execute(f"CREATE ROLE {OWNER} LOGIN CREATEROLE PASSWORD '{PASSWORD}'")
        server.execute(f"CREATE DATABASE fleet OWNER {OWNER}")
        url = URL.create(
            "postgresql+psycopg", OWNER, PASSWORD, network.address, server.port, "fleet"
        )
        self.settings = {
            **SHARED,
            "DARKROOM_STORAGE__DATABASE_URL": url.render_as_string(hide_password=False),
            "DARKROOM_STORAGE__FILES_URL": store.bucket(),
            "AWS_ENDPOINT_URL": store.url,
            **s3.ENVIRONMENT,
            "DARKROOM_FLEET__ADDRESS": network.address,
        }
        self.port, self.inner_port = free_port(), free_port()
        self.url = f"https://{network.address}:{self.port}"
        self.head_dir = folder / "first"

    def web(self) -> Program:
        """The web process that boxes reach, with TLS."""
        words = ("web", "--host", self.network.address, "--port", str(self.port))
        return self._program("web", *words, data=self.head_dir, DARKROOM_TLS__MODE="local_ca")

    def local_web(self) -> Program:
        """Another web process, for programs on the first box: without TLS."""
        words = ("web", "--host", "127.0.0.1", "--port", str(self.inner_port))
        return self._program("local-web", *words, data=self.folder / "local")

    def head(self) -> Program:
        """Ray's head."""
        return self._program("head", "fleet", "start", data=self.head_dir, hidden=True)

    def owner(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of the first box's owner."""
        settings = {**self.settings, "DARKROOM_TLS__MODE": "local_ca"}
        done = darkroom(self.head_dir, *words, **settings)
        assert done.returncode == 0, done.stderr
        return done

    def code(self) -> str:
        return self.owner("fleet", "code").stdout.split()[3]

    def ready(self) -> int:
        """How many workers have loaded their model."""
        engine = create_engine(self.postgres.url("fleet"))
        try:
            with engine.connect() as connection:
                alive = "lease_until > extract(epoch FROM now())"
                query = f"SELECT count(*) FROM workers WHERE ready AND {alive}"
                return int(connection.exec_driver_sql(query).scalar_one())
        finally:
            engine.dispose()

    def box(self, number: int) -> AbstractContextManager[Box]:
        """Context with a box that joins."""
        return joining(self.network, self.folder, number, self.url, self.code())

    def _program(
        self, name: str, *words: str, data: Path, hidden: bool = False, **more: str
    ) -> Program:
        where = ("--data-dir", str(data))
        settings = {**self.settings, **more}
        return Program(self.folder / f"{name}.log", *words, *where, hidden=hidden, **settings)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with (
        bridge() as network,
        postgres.running(network.address) as server,
        s3.running(network.address) as store,
    ):
        yield Fleet(folder, network, server, store)


def test_every_job_gets_its_picture_whatever_dies(fleet: Fleet, photo: Path) -> None:
    with ExitStack() as stack:
        programs = [fleet.web(), fleet.local_web(), fleet.head()]
        for program in programs:
            stack.callback(program.stop)
        _, web, head = programs
        url = f"http://127.0.0.1:{fleet.inner_port}"
        answers(f"{url}/healthz")
        first, second = (stack.enter_context(fleet.box(number)) for number in (1, 2))
        caller = Caller(url, photo, JOBS)
        patiently(lambda: fleet.ready() == 2, first.program.log)
        caller.draw(disturbances(fleet, first, second, web, head))

        # Who was removed ends.
        assert "removed box-2" in fleet.owner("fleet", "remove", "box-2").stdout
        assert second.program.process.wait(4 * PATIENCE_S) == 1
        assert "was removed" in second.program.log.read_text()
        assert caller.refusals <= {503}


def disturbances(
    fleet: Fleet, first: Box, second: Box, web: Program, head: Program
) -> Iterator[Callable[[], None]]:
    """What happens, in this order, each while jobs are worked on."""

    def cut_second_off() -> None:
        second.cut_off()
        time.sleep(CUT_S)  # what is tested is that so long a time goes by
        second.connect()

    yield lambda: first.program.inner("raylet/raylet").kill()
    yield web.crash
    yield fleet.postgres.crash
    yield lambda: head.inner("gcs_server").kill()
    yield lambda: fleet.store.stay_away(STORE_AWAY_S)
    yield cut_second_off
