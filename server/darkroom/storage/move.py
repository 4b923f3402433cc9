"""`darkroom storage move`: carries the records and files of a stopped server to other places.

Files go first, each checked by its hash, and then all records in one transaction, which is checked
before its commit. So a move that is killed at any moment has left an empty database, and the next
one goes on with the files that are missing. The source is only read.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from darkroom.config import Settings
from darkroom.errors import DarkroomError
from darkroom.storage import database, tables
from darkroom.storage.database import Database, Place, place_of
from darkroom.storage.files import Files, files_of
from darkroom.storage.tables import (
    ExplanationRow,
    ImageRow,
    JobRow,
    SecretRow,
    UploadRow,
    WorkerRow,
)

# What the server that was stopped wrote about itself, what triggers count in the new place, and
# keys, which are in the data folder too.
NOT_MOVED = {WorkerRow.__tablename__, "totals", SecretRow.__tablename__}
FILED = (ImageRow, UploadRow, ExplanationRow)
ROWS = 1000  # read and written at a time
COPIES = 8  # files at a time


class MoveError(DarkroomError):
    """Nothing was moved, or not all; what was there before is as it was."""


@dataclass(frozen=True)
class Moved:
    """How many jobs and files are in the new places, and how many recorded files were missing."""

    jobs: int
    files: int
    missing: int


class Digest(NamedTuple):
    """Of a table: the number of its rows, and the sum of their hashes, in whatever order."""

    rows: int
    hashes: int


def move(source: Settings, target: Settings) -> Moved:
    """Copy everything of a stopped server to the places of `target`, and check it.

    The places may be the same in one of the two.

    Raises:
        MoveError: says why it cannot be.
        DatabaseUnavailableError, FilesUnavailableError: a place cannot be used now.
        OSError: a disk is full or broken.
    """
    _check_stopped(source)
    places = place_of(source), place_of(target)
    if database.schema(places[0]) != database.newest_schema():
        raise MoveError("the records are of another version: start the server once, and stop it")
    with closing(Database(places[0])) as old:
        _check_no_worker(old)
        moved = _move_files(old, source, target)
        if places[0] != places[1]:
            _move_records(old, places[1])
        with old.read() as session:
            jobs = session.scalar(select(func.count()).select_from(JobRow)) or 0
    return Moved(jobs, *moved)


def _check_stopped(settings: Settings) -> None:
    for lock in sorted(settings.data_dir.glob("*.lock")):
        if database.is_held(lock):
            raise MoveError(f"the server runs on {settings.data_dir} ({lock.name}); stop it first")


def _check_no_worker(old: Database) -> None:
    """Check that no other machine works on the queue, by the last heartbeats."""
    with old.read() as session:
        is_alive = WorkerRow.lease_until > time.time()
        alive = session.scalars(select(WorkerRow.id).where(is_alive)).all()
    if alive:
        raise MoveError(
            f"workers may still be at work: {', '.join(sorted(alive))}; stop them, or wait until "
            "the lease of those that were killed is over (queue.lease_s)"
        )


# --- files ---------------------------------------------------------------------------------


def _move_files(old: Database, source: Settings, target: Settings) -> tuple[int, int]:
    """Copy all recorded files. Returns how many there are, and how many were missing."""
    with old.read() as session:
        wanted = {
            name: digest
            for row in FILED
            for name, digest in session.execute(select(row.id, row.sha256))
        }
    here = files_of(source)
    if _place_of_files(source) == _place_of_files(target):
        return len(wanted), 0
    there = files_of(target)
    there.check()
    known = set(there.names())
    strange = known - wanted.keys() - {"clock"}
    if strange:
        raise MoveError(
            f"the place for files has {len(strange)} files of others, such as {min(strange)}: "
            "name an empty one"
        )

    def copy(name: str) -> bool:
        return name in known or here.share(name, there)

    def is_right(name: str) -> bool:
        return _is_same(name, wanted[name], here, there)

    with ThreadPoolExecutor(COPIES, "move") as threads:
        found = dict(zip(wanted, threads.map(copy, wanted), strict=True))
        present = [name for name in wanted if found[name]]
        wrong = [
            name
            for name, right in zip(present, threads.map(is_right, present), strict=True)
            if not right
        ]
    if wrong:
        raise MoveError(f"{len(wrong)} files differ after they were copied, such as {wrong[0]}")
    return len(present), len(wanted) - len(present)


def _place_of_files(settings: Settings) -> str:
    url = settings.storage.files_url
    return str(settings.images_dir) if url is None else url.get_secret_value()


def _is_same(name: str, digest: str, here: Files, there: Files) -> bool:
    """Whether a copied file has the recorded hash, or else the source's bytes. Copies it again."""
    if sha256(there.read(name)).hexdigest() == digest:
        return True
    try:
        data = here.read(name)
    except FileNotFoundError:
        return False
    there.write(name, data)  # an earlier move was killed while it wrote
    return there.read(name) == data


# --- records -------------------------------------------------------------------------------


def _move_records(old: Database, place: Place) -> None:
    """Copy all records to an empty database, in one transaction, and check them in it."""
    database.migrate(place)
    with closing(Database(place)) as new, old.read() as source, new.write() as target:
        for session in (source, target):  # one is silent while the other's rows are hashed
            if session.get_bind().dialect.name == "postgresql":
                session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        before = {table.name: _digest(source, table) for table in _tables()}
        if any(_digest(target, table).rows for table in _tables()):
            if all(_digest(target, table) == before[table.name] for table in _tables()):
                return  # an earlier move was complete
            raise MoveError(f"the database {place} has records: name an empty one")
        for table in _tables():
            for rows in _rows(source, table):
                target.execute(insert(table), rows)
            _set_counter(target, table, _counter(source, table))
        for table in _tables():
            if _digest(target, table) != before[table.name]:
                raise MoveError(f"the table {table.name} differs after it was copied")


def _tables() -> list[Table]:
    """Those that are moved, each after those that it refers to."""
    found = tables.Table.metadata.sorted_tables
    return [table for table in found if table.name not in NOT_MOVED]


def _rows(session: Session, table: Table) -> Iterator[list[dict[str, Any]]]:
    query = select(table).order_by(*table.primary_key)
    found = session.execute(query, execution_options={"yield_per": ROWS})
    for rows in found.mappings().partitions():
        yield [dict(row) for row in rows]


def _digest(session: Session, table: Table) -> Digest:
    rows = hashes = 0
    for some in _rows(session, table):
        rows += len(some)
        for row in some:
            content = repr([(column.name, row[column.name]) for column in table.columns])
            hashes += int.from_bytes(sha256(content.encode()).digest())
    return Digest(rows, hashes)


def _is_counted(table: Table) -> bool:
    """Whether the database numbers the rows, and never gives a number twice."""
    return bool(table.dialect_options["sqlite"]["autoincrement"])


def _counter(session: Session, table: Table) -> int:
    """The greatest number that was ever given to a row; 0 if none was."""
    if not _is_counted(table):
        return 0
    (column,) = table.primary_key
    last = session.scalar(select(func.max(column))) or 0
    if session.get_bind().dialect.name == "sqlite":
        found = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        return max(last, session.scalar(found, {"name": table.name}) or 0)
    sequence = session.scalar(select(func.pg_get_serial_sequence(table.name, column.name)))
    given = session.scalar(text(f"SELECT CASE WHEN is_called THEN last_value END FROM {sequence}"))
    return max(last, given or 0)


def _set_counter(session: Session, table: Table, last: int) -> None:
    """Have the database give greater numbers than `last`."""
    if not last:
        return
    (column,) = table.primary_key
    if session.get_bind().dialect.name == "sqlite":
        about = {"name": table.name, "last": last}
        session.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), about)
        session.execute(text("INSERT INTO sqlite_sequence VALUES (:name, :last)"), about)
        return
    sequence = func.pg_get_serial_sequence(table.name, column.name)
    session.execute(select(func.setval(sequence, last)))


def advice(target: Settings) -> str:
    """The settings of the new places, for config.yaml. Passwords are left out."""
    place = place_of(target)
    shown = place.render_as_string() if isinstance(place, URL) else "null"
    url = target.storage.files_url
    files = "null" if url is None else url.get_secret_value()
    lines = ["storage:", f"  database_url: {shown}", f"  files_url: {files}"]
    if target.storage.files_options and url is not None:
        lines.append("  files_options: as given to this command")
    return "\n".join(lines)
