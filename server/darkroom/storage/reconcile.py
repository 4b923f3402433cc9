"""At a start: files that belong to nothing are put aside, records whose file is gone are counted.

A process that dies between writing a file and recording it leaves a file that nobody will ask for.
Each kind of file is judged by the only process that writes it, before it writes any: uploads by
web, developed pictures by the worker. Files are moved, not deleted: when an older copy of the
database was put back, they are somebody's pictures.
"""

import re
import time
from collections.abc import Callable, Container
from dataclasses import dataclass

import structlog
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute

from darkroom.config import Settings
from darkroom.responses import JobStatus
from darkroom.storage.database import Database, DatabaseUnavailableError
from darkroom.storage.files import Files
from darkroom.storage.tables import ImageRow, JobRow, UploadRow

log = structlog.get_logger()

TROUBLE = (OSError, DatabaseUnavailableError)
NOT_NOW = "files were not compared with records; the next start does it"

UPLOAD = re.compile(r"up[0-9a-f]+")
OUTPUT = re.compile(r"(?P<job>[0-9a-zA-Z]+)-\d+")


@dataclass(frozen=True)
class Reconciled:
    """What was found.

    Attributes:
        orphans: files that no record names, put aside.
        temporaries: left by interrupted writes, deleted.
        missing: records whose file is not there; they stay, for a disk may be away.
    """

    orphans: int
    temporaries: int
    missing: int


def at_web_start(settings: Settings) -> None:
    """Judge the uploads of a data folder, if its disk and database let us; see `uploads`."""
    database = Database(settings.database_path)
    try:
        uploads(database, Files(settings.images_dir), Files(settings.orphans_dir))
    except TROUBLE:
        log.exception(NOT_NOW)
    finally:
        database.close()


def at_worker_start(settings: Settings, database: Database, worker: str) -> None:
    """Judge the pictures of a data folder, if its disk and database let us; see `outputs`."""
    try:
        outputs(database, Files(settings.images_dir), Files(settings.orphans_dir), worker)
    except TROUBLE:
        log.exception(NOT_NOW)


def uploads(database: Database, files: Files, orphans: Files) -> Reconciled:
    """Judge uploads. Only for the one web process of the data folder, before it takes requests.

    Args:
        database: migrated.
        files: uploads and pictures.
        orphans: where to put what belongs to nothing.
    """
    return _reconcile(database, files, orphans, UPLOAD, UploadRow.id, ())


def outputs(
    database: Database,
    files: Files,
    orphans: Files,
    worker: str,
    clock: Callable[[], float] = time.time,
) -> Reconciled:
    """Judge developed pictures. Only for the worker of this id, before it takes jobs.

    Args:
        database: migrated.
        files: uploads and pictures.
        orphans: where to put what belongs to nothing.
        worker: pictures of jobs that other live workers hold are left alone.
        clock: seconds since the epoch.
    """
    held = (
        JobRow.status == JobStatus.RUNNING,
        JobRow.worker != worker,
        JobRow.lease_until > clock(),
    )
    return _reconcile(database, files, orphans, OUTPUT, ImageRow.id, held)


def missing(database: Database, files: Files) -> int:
    """How many records of uploads and pictures have no file."""
    there = set(files.names())
    return len((_ids(database, UploadRow.id) | _ids(database, ImageRow.id)) - there)


def _reconcile(
    database: Database,
    files: Files,
    orphans: Files,
    kind: re.Pattern[str],
    column: InstrumentedAttribute[str],
    held: tuple[ColumnElement[bool], ...],
) -> Reconciled:
    # Files first: what is deleted meanwhile then counts as neither orphaned nor missing for long.
    there = {name for name in files.names() if kind.fullmatch(name)}
    half = [(name, path) for name, path in files.temporaries() if kind.fullmatch(name)]
    recorded = _ids(database, column)
    busy = _ids(database, JobRow.id, *held) if held else frozenset()
    moved = sum(
        files.move(name, orphans) for name in there - recorded if not _belongs(kind, name, busy)
    )
    half = [(name, path) for name, path in half if not _belongs(kind, name, busy)]
    for _, path in half:
        path.unlink(missing_ok=True)
    found = Reconciled(moved, len(half), len(recorded - there))
    if found.orphans or found.temporaries:
        log.warning(
            "files that belong to nothing were put aside",
            orphans=found.orphans,
            temporaries=found.temporaries,
        )
    if found.missing:
        log.warning("pictures are recorded whose files are not there", missing=found.missing)
    return found


def _belongs(kind: re.Pattern[str], name: str, jobs: Container[str]) -> bool:
    found = kind.fullmatch(name)
    return found is not None and found.groupdict().get("job") in jobs


def _ids(
    database: Database, column: InstrumentedAttribute[str], *where: ColumnElement[bool]
) -> frozenset[str]:
    with database.read() as session:
        return frozenset(session.scalars(select(column).where(*where)))
