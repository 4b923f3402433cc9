"""The SQLite database: connections, durability, migrations, and locks between processes."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import structlog
from filelock import FileLock
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from darkroom.errors import DarkroomError
from darkroom.storage.backup import copy_before_migration, migration_copies
from darkroom.storage.data_folder import check_writable

log = structlog.get_logger()

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_S = 10.0

# By SQLite's primary result code (https://sqlite.org/rescode.html).
TEMPORARY = {
    sqlite3.SQLITE_BUSY: "another process has locked the database",
    sqlite3.SQLITE_LOCKED: "another process has locked the database",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written",
    sqlite3.SQLITE_CANTOPEN: "the database cannot be opened",
    sqlite3.SQLITE_READONLY: "the database cannot be written",
}

Durability = Literal["FULL", "NORMAL"]


class DatabaseUnavailableError(DarkroomError):
    """The database cannot be used at the moment; nothing was written. A later try may succeed.

    `full` says whether the reason is a full disk.
    """

    def __init__(self, reason: str, *, full: bool) -> None:
        super().__init__(reason)
        self.full = full


class NewerDatabaseError(DarkroomError):
    """The database was migrated by a newer version of the program; nothing was changed.

    `detail` says what was found, `advice` what to do.
    """

    def __init__(self, path: Path, found: str) -> None:
        self.detail = (
            f"{path} has schema {found}, but this version of the program knows up to "
            f"{newest_schema()}"
        )
        known = [copy for copy, schema in migration_copies(path) if schema in _known_schemas()]
        copy = known[-1] if known else "a backup made by this version"
        self.advice = (
            f"upgrade the program; or stop it, delete {path}-wal and {path}-shm, and put {copy} "
            f"in the place of {path}"
        )
        super().__init__(f"{self.detail}: {self.advice}")


@contextmanager
def _translated() -> Iterator[None]:
    """Raise DatabaseUnavailableError for conditions that may pass; other errors are bugs."""
    try:
        yield
    except OperationalError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code not in TEMPORARY:
            raise
        full = code == sqlite3.SQLITE_FULL
        raise DatabaseUnavailableError(TEMPORARY[code], full=full) from error


def connect(path: Path, durability: Durability, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """An SQLAlchemy engine for the SQLite file.

    Every transaction begins IMMEDIATE: a reader that later writes could otherwise fail with
    "database is locked" however long it is willing to wait
    (https://sqlite.org/lang_transaction.html).

    FULL durability survives a power cut after each commit; NORMAL, in WAL mode, may lose the last
    commits but never corrupts.
    """
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"timeout": busy_timeout_s, "check_same_thread": False},
        hide_parameters=True,  # errors are logged, and parameters contain prompts
        pool_size=8,
        max_overflow=64,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun explicitly, below
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={durability}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


class Database:
    """Sessions on one migrated SQLite file, from any thread or process.

    Transactions wait up to `busy_timeout_s` while another process holds the lock. They raise
    DatabaseUnavailableError if the database cannot be used; nothing was written then.
    """

    def __init__(self, path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path
        self._durable = connect(path, "FULL", busy_timeout_s)
        self._relaxed = connect(path, "NORMAL", busy_timeout_s)
        self._reading = self._relaxed.execution_options(read_only=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A read transaction: a consistent view that blocks no writer."""
        with _translated(), Session(self._reading) as session:
            yield session

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Session]:
        """One transaction, committed at the end of the block unless it raises.

        If it is `durable`, it is synced to disk then. Otherwise a power cut may lose it, but never
        a part of it.
        """
        engine = self._durable if durable else self._relaxed
        with _translated(), Session(engine) as session, session.begin():
            yield session

    def shrink_log(self) -> None:
        """Checkpoint and truncate the write-ahead log, unless a reader is using it.

        The database file itself does not shrink; free pages in it are reused.
        """
        with closing(sqlite3.connect(self._path, timeout=0.5)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._durable.dispose()
        self._relaxed.dispose()


def migrate(path: Path) -> None:
    """Create the database at `path` or migrate it to the newest schema.

    A copy of an older database is made first. A lock keeps processes that start together from
    migrating at the same time.

    Raises:
        BackupError: the copy cannot be made, for example for lack of space; nothing was changed.
        NewerDatabaseError: a newer version of the program has migrated it.
        DatabaseUnavailableError: the database cannot be used now.
        NotWritableError: the folder or the database cannot be written; says what to do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    check_writable([path.parent, path])
    with FileLock(path.with_suffix(".migrating")):
        engine = connect(path, "FULL")
        try:
            with _translated(), engine.begin() as connection:
                found = _schema(connection)
                if found == newest_schema():
                    return
                if found is not None:
                    check_schema(path, found)
                    copy = copy_before_migration(path, found)
                    log.info("database copied before migration", schema=found, copy=str(copy))
                _upgrade(connection)
        finally:
            engine.dispose()


def newest_schema() -> str:
    """The revision of the last migration, from its file name."""
    return max(_known_schemas())


def check_schema(path: Path, found: str) -> None:
    """Check that the program knows the schema of the database at `path`, by its revision.

    Raises:
        NewerDatabaseError: it does not.
    """
    if found not in _known_schemas():
        raise NewerDatabaseError(path, found)


def _known_schemas() -> set[str]:
    return {file.name.partition("_")[0] for file in MIGRATIONS.glob("versions/[0-9]*_*.py")}


def _schema(connection: Connection) -> str | None:
    """The revision of the database's schema; None if it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _upgrade(connection: Connection) -> None:
    # Imported here because most starts have nothing to upgrade, and alembic takes 10 MiB.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def processes() -> str:
    """The PID namespace of this process, because containers have their own. Linux only."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


@contextmanager
def exclusively(path: Path, *, mark: bool = True) -> Iterator[bool]:
    """Hold a lock file, which the kernel releases when this process ends.

    Yields whether the lock was free; if not, the block runs without it. With `mark`, this process's
    id and PID namespace are written into the file.
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


def is_held(path: Path) -> bool:
    """Whether a running process holds a lock file. Needs no permission to write it."""
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
