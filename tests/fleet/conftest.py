"""A first box, whose role in PostgreSQL may make roles and is no superuser, as one is set up."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import URL

from darkroom.storage.database import Database
from tests.postgres import Server
from tests.serving import RunningServer, running

OWNER = "darkroom"
Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass
class FirstBox:
    """The first box: its server, the settings that it has, and its database."""

    server: RunningServer
    settings: dict[str, str]
    url: URL
    postgres: Server

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of its owner."""
        return darkroom(self.server.data_dir, *words, **self.settings)

    def new_code(self) -> str:
        """A code as `darkroom fleet code` prints it."""
        printed = self.run("fleet", "code")
        assert printed.returncode == 0, printed.stderr
        command, word, _, code = printed.stdout.split()
        assert (command, word) == ("darkroom", "join")
        return code

    def as_superuser(self, statement: str) -> list[tuple[object, ...]]:
        engine = create_engine(self.postgres.url(self.url.database or ""))
        with engine.connect() as connection:
            found = [tuple(row) for row in connection.exec_driver_sql(statement)]
        engine.dispose()
        return found


def darkroom(data_dir: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a data folder."""
    return subprocess.run(
        [sys.executable, "-m", "darkroom", *words, "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.fixture(scope="session")
def owned_url(postgres_server: Server) -> URL:
    """An empty database whose owner may make roles."""
    postgres_server.execute(f"CREATE ROLE {OWNER} LOGIN CREATEROLE")
    postgres_server.execute(f"CREATE DATABASE fleet OWNER {OWNER}")
    return postgres_server.url("fleet").set(username=OWNER)


@pytest.fixture(scope="session")
def first_box(
    tmp_path_factory: pytest.TempPathFactory, owned_url: URL, postgres_server: Server
) -> Iterator[FirstBox]:
    """A first box without a worker."""
    folder = tmp_path_factory.mktemp("first")
    settings = {
        "DARKROOM_STORAGE__DATABASE_URL": owned_url.render_as_string(hide_password=False),
        "DARKROOM_STORAGE__FILES_URL": f"file://{tmp_path_factory.mktemp('files')}",
        "DARKROOM_FLEET__DATABASE_HOST": str(postgres_server.folder),
        "DARKROOM_TLS__MODE": "local_ca",
        "DARKROOM_QUEUE__LEASE_S": "20.0",
        "DARKROOM_AUTH__FAILURES_PER_MINUTE": "1000",
    }
    trusting = folder / "tls" / "ca.pem"
    with running(folder, process="web", trusting=trusting, **settings) as server:
        yield FirstBox(server, settings, owned_url, postgres_server)


@pytest.fixture(scope="session")
def database(first_box: FirstBox) -> Iterator[Database]:
    """The first box's database, as its owner."""
    opened = Database(first_box.url)
    yield opened
    opened.close()
