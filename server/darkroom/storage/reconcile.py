"""At start: move orphaned files aside, and count records whose file is missing.

A process that dies between writing a file and recording it leaves an orphaned file. Each kind of
file is checked by the only process that writes it, before it writes any: uploads by web, images by
the worker. Orphans are moved, not deleted: after an older copy of the database was restored, they
are images that people want back.
"""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog
from sqlalchemy import ColumnElement, and_, false, select
from sqlalchemy.orm import InstrumentedAttribute

from darkroom.config import Settings
from darkroom.responses import JobStatus
from darkroom.storage.database import Database, DatabaseUnavailableError, place_of
from darkroom.storage.files import Files
from darkroom.storage.tables import ExplanationRow, ImageRow, JobRow, UploadRow

log = structlog.get_logger()

SKIPPED = "files were not compared with records; the next start will do it"
UPLOAD = re.compile(r"up[0-9a-f]+")
OUTPUT = re.compile(r"[0-9a-zA-Z]+-\d+(-explain)?")  # the job's id, and the index

Names = InstrumentedAttribute[str]
OUTPUTS: tuple[Names, ...] = (ImageRow.id, ExplanationRow.id)


@dataclass(frozen=True)
class Reconciled:
    """How many orphans were moved, temporaries of interrupted writes deleted, and files missing.

    Records of missing files are kept, because a disk may not be mounted.
    """

    orphans: int
    temporaries: int
    missing: int


def at_web_start(settings: Settings) -> None:
    """Check the uploads of a data folder; see `uploads`. Errors are logged."""
    database = Database(place_of(settings))
    try:
        uploads(database, Files(settings.images_dir), Files(settings.orphans_dir))
    except (OSError, DatabaseUnavailableError):
        log.exception(SKIPPED)
    finally:
        database.close()


def at_worker_start(settings: Settings, database: Database, worker: str) -> None:
    """Check the images of a data folder; see `outputs`. Errors are logged."""
    try:
        outputs(database, Files(settings.images_dir), Files(settings.orphans_dir), worker)
    except (OSError, DatabaseUnavailableError):
        log.exception(SKIPPED)


def uploads(database: Database, files: Files, orphans: Files) -> Reconciled:
    """Check uploads. Only for the web process of the data folder, before it accepts requests."""
    return _reconcile(database, files, orphans, UPLOAD, (UploadRow.id,), false())


def outputs(
    database: Database,
    files: Files,
    orphans: Files,
    worker: str,
    clock: Callable[[], float] = time.time,
) -> Reconciled:
    """Check images and explanations. Only for the worker of this id, before it claims jobs.

    Images of jobs that other workers hold a lease on are left alone.
    """
    held = and_(
        JobRow.status == JobStatus.RUNNING,
        JobRow.worker != worker,
        JobRow.lease_until > clock(),
    )
    return _reconcile(database, files, orphans, OUTPUT, OUTPUTS, held)


def missing(database: Database, files: Files) -> int:
    """The number of records of uploads, images and explanations without a file."""
    return len(_recorded(database, (UploadRow.id, *OUTPUTS)) - set(files.names()))


def _recorded(database: Database, columns: Iterable[Names]) -> set[str]:
    with database.read() as session:
        return {name for column in columns for name in session.scalars(select(column))}


def _reconcile(
    database: Database,
    files: Files,
    orphans: Files,
    kind: re.Pattern[str],
    columns: Iterable[Names],
    held: ColumnElement[bool],
) -> Reconciled:
    """Compare the files whose names are of a `kind` with columns, but for those of `held` jobs."""
    # Files first: a file added while this runs must not count as an orphan.
    there = {name for name in files.names() if kind.fullmatch(name)}
    half = [(name, path) for name, path in files.temporaries() if kind.fullmatch(name)]
    recorded = _recorded(database, columns)
    with database.read() as session:
        busy = set(session.scalars(select(JobRow.id).where(held)))

    def abandoned(name: str) -> bool:
        return name.partition("-")[0] not in busy

    moved = sum(files.move(name, orphans) for name in there - recorded if abandoned(name))
    deleted = [path for name, path in half if abandoned(name)]
    for path in deleted:
        path.unlink(missing_ok=True)
    found = Reconciled(moved, len(deleted), len(recorded - there))
    if found.orphans or found.temporaries:
        log.warning(
            "orphaned files were moved aside",
            orphans=found.orphans,
            temporaries=found.temporaries,
        )
    if found.missing:
        log.warning("recorded images have no file", missing=found.missing)
    return found
