"""The database: transactions, migrations, and locks between processes of one machine."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from filelock import FileLock
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from darkroom.config import Settings
from darkroom.errors import DarkroomError
from darkroom.storage import postgresql, sqlite
from darkroom.storage.backup import copy_before_migration, migration_copies
from darkroom.storage.data_folder import check_writable

log = structlog.get_logger()

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_S = 10.0

Place = Path | URL  # an SQLite file, or a PostgreSQL database


def place_of(settings: Settings) -> Place:
    """Where the queue and all records are."""
    url = settings.storage.database_url
    return settings.database_path if url is None else make_url(url.get_secret_value())


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

    def __init__(self, place: Place, found: str) -> None:
        self.detail = (
            f"{place} has schema {found}, but this version of the program knows up to "
            f"{newest_schema()}"
        )
        self.advice = "upgrade the program; or stop it, and restore a backup made by this version"
        if isinstance(place, Path):
            known = [copy for copy, name in migration_copies(place) if name in _known_schemas()]
            copy = known[-1] if known else "a backup made by this version"
            self.advice = (
                f"upgrade the program; or stop it, delete {place}-wal and {place}-shm, and put "
                f"{copy} in the place of {place}"
            )
        super().__init__(f"{self.detail}: {self.advice}")


@contextmanager
def _translated() -> Iterator[None]:
    """Raise DatabaseUnavailableError for conditions that may pass; other errors are bugs."""
    try:
        yield
    except PoolTimeoutError as error:
        raise DatabaseUnavailableError("all connections to it are in use", full=False) from error
    except DBAPIError as error:
        kind = sqlite if isinstance(error.orig, sqlite3.Error) else postgresql
        found = kind.passing(error)
        if found is None:
            raise
        reason, full = found
        raise DatabaseUnavailableError(reason, full=full) from error


def connect(place: Place, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """An SQLAlchemy engine. Its transactions are durable, and one at a time."""
    if isinstance(place, URL):
        return postgresql.connect(place, busy_timeout_s)
    return sqlite.connect(place, True, busy_timeout_s)


class Database:
    """Sessions on one migrated database, from any thread or process.

    Transactions wait up to `busy_timeout_s` while another process writes. They raise
    DatabaseUnavailableError if the database cannot be used. Nothing was written then, unless the
    connection to a server was lost while it committed: then it is not known.
    """

    def __init__(self, place: Place, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._place = place
        self._durable = connect(place, busy_timeout_s=busy_timeout_s)
        self._relaxed: Engine
        if isinstance(place, URL):
            self._relaxed = self._durable.execution_options(relaxed=True)
        else:
            self._relaxed = sqlite.connect(place, False, busy_timeout_s)
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
        """Give the disk what SQLite's log took, unless it is used. A server does so itself."""
        if isinstance(self._place, Path):
            sqlite.shrink_log(self._place)

    def close(self) -> None:
        self._durable.dispose()
        self._relaxed.dispose()


def migrate(place: Place) -> None:
    """Create the tables of a database, or migrate them to the newest schema.

    A copy of an older SQLite database is made first. Processes that start together do not migrate
    at the same time.

    Raises:
        BackupError: the copy cannot be made, for example for lack of space; nothing was changed.
        NewerDatabaseError: a newer version of the program has migrated it.
        DatabaseUnavailableError: the database cannot be used now.
        NotWritableError: the folder or the database cannot be written; says what to do.
    """
    if isinstance(place, URL):
        _migrate(place)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    check_writable([place.parent, place])
    with FileLock(place.with_suffix(".migrating")):
        _migrate(place)


def _migrate(place: Place) -> None:
    engine = connect(place)
    try:
        with _translated(), engine.begin() as connection:
            found = _schema(connection)
            if found == newest_schema():
                return
            if found is not None:
                check_schema(place, found)
                if isinstance(place, Path):
                    copy = copy_before_migration(place, found)
                    log.info("database copied before migration", schema=found, copy=str(copy))
            _upgrade(connection)
    finally:
        engine.dispose()


def schema(place: Place) -> str | None:
    """The revision of a database's schema; None if it has no tables yet.

    Raises:
        DatabaseUnavailableError: it cannot be used now.
    """
    engine = connect(place)
    try:
        with _translated(), engine.execution_options(read_only=True).connect() as connection:
            return _schema(connection)
    finally:
        engine.dispose()


def newest_schema() -> str:
    """The revision of the last migration, from its file name."""
    return max(_known_schemas())


def check_schema(place: Place, found: str) -> None:
    """Check that the program knows the schema of a database, by its revision.

    Raises:
        NewerDatabaseError: it does not.
    """
    if found not in _known_schemas():
        raise NewerDatabaseError(place, found)


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
