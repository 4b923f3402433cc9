"""Opening the database: connections, durability, migrations."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_S = 10.0

# By SQLite's primary result code (https://sqlite.org/rescode.html).
PASSING_TROUBLE = {
    sqlite3.SQLITE_BUSY: "another process has locked the database",
    sqlite3.SQLITE_LOCKED: "another process has locked the database",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk does not take or give what is asked of it",
    sqlite3.SQLITE_CANTOPEN: "the database cannot be opened",
    sqlite3.SQLITE_READONLY: "the database cannot be written",
}

Durability = Literal["FULL", "NORMAL"]


class DatabaseUnavailableError(Exception):
    """The database cannot be used now. What was to be written is not; another time it may be.

    Attributes:
        full: whether it is for want of space.
    """

    def __init__(self, reason: str, *, full: bool) -> None:
        super().__init__(reason)
        self.full = full


@contextmanager
def _translated() -> Iterator[None]:
    """What may pass by itself as DatabaseUnavailableError; everything else is a fault of ours."""
    try:
        yield
    except OperationalError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code not in PASSING_TROUBLE:
            raise
        full = code == sqlite3.SQLITE_FULL
        raise DatabaseUnavailableError(PASSING_TROUBLE[code], full=full) from error


def connect(path: Path, durability: Durability, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """An engine over the SQLite file.

    Every transaction begins IMMEDIATE: a reader that later writes could otherwise fail with
    "database is locked" however long it is willing to wait
    (https://sqlite.org/lang_transaction.html).

    Args:
        path: of the database; its folder exists.
        durability: FULL survives a power cut after each commit; NORMAL, in WAL mode, may lose
            the last commits but never corrupts.
        busy_timeout_s: how long to wait while another process holds the lock.
    """
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"timeout": busy_timeout_s, "check_same_thread": False},
        hide_parameters=True,  # errors are logged, and these are people's words
        pool_size=8,
        max_overflow=64,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={durability}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


class Database:
    """Sessions on one SQLite file, from any thread or process.

    Args:
        path: of the database, already migrated.
        busy_timeout_s: how long to wait while another process holds the lock.
    """

    def __init__(self, path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path
        self._durable = connect(path, "FULL", busy_timeout_s)
        self._relaxed = connect(path, "NORMAL", busy_timeout_s)
        self._reading = self._relaxed.execution_options(read_only=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view that keeps no writer waiting.

        Raises:
            DatabaseUnavailableError: not now.
        """
        with _translated(), Session(self._reading) as session:
            yield session

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Session]:
        """One transaction, committed at the end of the block unless it raises.

        Args:
            durable: whether it is on disk when the block is left; what is not may be lost in a
                power cut, and is never half there.

        Raises:
            DatabaseUnavailableError: nothing was written.
        """
        engine = self._durable if durable else self._relaxed
        with _translated(), Session(engine) as session, session.begin():
            yield session

    def shrink_log(self) -> None:
        """Write the write-ahead log back and cut it, unless somebody is reading from it.

        The database file itself stays as large as it ever was; what was freed in it is used again.
        """
        connection = sqlite3.connect(self._path, timeout=0.5)
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()

    def close(self) -> None:
        self._durable.dispose()
        self._relaxed.dispose()


def migrate(path: Path) -> None:
    """Bring the database at `path` to the newest schema, making it if needed.

    Processes that start together take turns.

    Raises:
        DatabaseUnavailableError: not now.
        PermissionError: the folder or the database is somebody else's. Says whose, and what to do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_access(path)
    with FileLock(path.with_suffix(".migrating")):
        engine = connect(path, "FULL")
        try:
            with _translated(), engine.begin() as connection:
                if _schema(connection) != newest_schema():
                    _upgrade(connection)
        finally:
            engine.dispose()


def newest_schema() -> str:
    """The last migration's revision, told from its file's name."""
    return max(file.name.partition("_")[0] for file in MIGRATIONS.glob("versions/[0-9]*_*.py"))


def _schema(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _upgrade(connection: Connection) -> None:
    # Most starts have nothing to upgrade, and spare its 10 MiB.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _check_access(path: Path) -> None:
    """See that database and folder may be written, before a library says so in its own words."""
    for found in (path.parent, path):
        if found.exists() and not os.access(found, os.W_OK):
            user, owner = os.geteuid(), found.stat().st_uid
            raise PermissionError(
                f"{found} belongs to user {owner} and cannot be written by user {user}, who runs "
                f"the server: give it the folder with `chown -R {user} FOLDER`, by the folder's "
                "path on the machine itself if this is a container, or run the server as its owner"
            )


def processes() -> str:
    """Among which processes a process id is counted: containers count their own. Linux only."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


@contextmanager
def exclusively(path: Path, *, mark: bool = True) -> Iterator[bool]:
    """Hold a lock that dies with this process. Yields whether it was free.

    Args:
        path: of the lock.
        mark: whether to leave this process's id in it, and among which processes it counts.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except TimeoutError:
        yield False
        return
    try:
        if mark:
            path.write_text(f"{os.getpid()} {processes()}")
        yield True
    finally:
        lock.release()
