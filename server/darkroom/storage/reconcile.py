"""Moves orphaned files aside, and counts records whose file is missing.

A process that dies between writing a file and recording it leaves an orphaned file. Orphans are
moved, not deleted: after an older copy of the database was restored, they are images that people
want back.

In a folder of one web and one worker, each kind of file is checked at a start by the only process
that writes it, before it writes any: uploads by web, images by the worker. Where several may write,
`Review` checks files by their age, a few at a time.
"""

import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import structlog
from sqlalchemy import ColumnElement, and_, false, select
from sqlalchemy.orm import InstrumentedAttribute

from darkroom.config import Settings
from darkroom.responses import JobStatus
from darkroom.storage.database import Database, DatabaseUnavailableError, place_of
from darkroom.storage.files import SUBFOLDERS, Files, FolderFiles
from darkroom.storage.tables import ExplanationRow, ImageRow, JobRow, UploadRow

log = structlog.get_logger()

SKIPPED = "files were not compared with records; the next start will do it"
UPLOAD = re.compile(r"up[0-9a-f]+")
OUTPUT = re.compile(r"[0-9a-zA-Z]+-\d+(-explain)?")  # the job's id, and the index

Names = InstrumentedAttribute[str]
OUTPUTS: tuple[Names, ...] = (ImageRow.id, ExplanationRow.id)
ALL: tuple[Names, ...] = (UploadRow.id, *OUTPUTS)
UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)

MARGIN_S = 600.0  # on top of a lease: longer than a request takes from its file to its record
PARTS = 16  # of 256, judged at a time
ASKED = 500  # names in one query


@dataclass(frozen=True)
class Reconciled:
    """How many orphans were moved, temporaries of interrupted writes deleted, and files missing.

    Records of missing files are kept, because a disk may not be mounted.
    """

    orphans: int
    temporaries: int
    missing: int


def is_shared(settings: Settings) -> bool:
    """Whether other processes may write files, so that none can be judged at a start."""
    places = settings.storage.files_url, settings.storage.database_url
    return settings.workers != 1 or any(place is not None for place in places)


def at_web_start(settings: Settings) -> None:
    """Check the uploads of a data folder; see `uploads`. Errors are logged."""
    if is_shared(settings):
        return
    database = Database(place_of(settings))
    try:
        uploads(database, FolderFiles(settings.images_dir), FolderFiles(settings.orphans_dir))
    except (OSError, DatabaseUnavailableError):
        log.exception(SKIPPED)
    finally:
        database.close()


def at_worker_start(settings: Settings, database: Database, worker: str) -> None:
    """Check the images of a data folder; see `outputs`. Errors are logged."""
    if is_shared(settings):
        return
    try:
        files, orphans = FolderFiles(settings.images_dir), FolderFiles(settings.orphans_dir)
        outputs(database, files, orphans, worker)
    except (OSError, DatabaseUnavailableError):
        log.exception(SKIPPED)


def uploads(database: Database, files: FolderFiles, orphans: FolderFiles) -> Reconciled:
    """Check uploads. Only for the web process of the data folder, before it accepts requests."""
    return _reconcile(database, files, orphans, UPLOAD, (UploadRow.id,), false())


def outputs(
    database: Database,
    files: FolderFiles,
    orphans: FolderFiles,
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
    return len(_recorded(database, ALL) - set(files.names()))


def _recorded(database: Database, columns: Iterable[Names]) -> set[str]:
    with database.read() as session:
        return {name for column in columns for name in session.scalars(select(column))}


def _reconcile(
    database: Database,
    files: FolderFiles,
    orphans: FolderFiles,
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
        return _job_of(name) not in busy

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


# --- where several processes write ---------------------------------------------------------


@dataclass(eq=False)
class Review:
    """Moves orphans aside that are older than any write that may still be recorded.

    A file is an orphan if no record has its name, its job has ended or is not there, and it was
    written long ago by the clock of the place of files: for as long as a lease is valid, and
    `MARGIN_S`. Each call judges the parts of the files after those of the last one, so that none
    lists all of them. Several processes begin anywhere, so that they do not do the same.

    Attributes:
        lease_s: how long a lease is valid.
        parts: judged in one call.
    """

    database: Database
    files: Files
    orphans: Files
    lease_s: float
    parts: int = PARTS
    _next: int = field(default_factory=lambda: random.randrange(len(SUBFOLDERS)), init=False)

    def sweep(self) -> Reconciled:
        """Judge the next parts. Records of missing files are not counted.

        Raises:
            FilesUnavailableError, DatabaseUnavailableError: they cannot be judged now.
            OSError: a file cannot be moved.
        """
        before = self.files.now() - self.lease_s - MARGIN_S
        orphans = half_written = 0
        for _ in range(self.parts):
            stored = self.files.part(self._next)
            names = (name for name, changed_at in stored if changed_at < before and _is_ours(name))
            while some := list(islice(names, ASKED)):
                found = self._unrecorded(some)
                orphans += sum(self.files.move(name, self.orphans) for name in found)
            half_written += self.files.delete_half_written(self._next, before)
            self._next = (self._next + 1) % len(SUBFOLDERS)
        if orphans or half_written:
            log.warning(
                "orphaned files were moved aside", orphans=orphans, temporaries=half_written
            )
        return Reconciled(orphans, half_written, 0)

    def _unrecorded(self, names: Sequence[str]) -> list[str]:
        """Those that no record names, and that no unfinished job may still record."""
        jobs = {_job_of(name) for name in names}
        with self.database.read() as session:
            unfinished = JobRow.id.in_(jobs) & JobRow.status.in_(UNFINISHED)
            busy = set(session.scalars(select(JobRow.id).where(unfinished)))
            recorded = {
                name
                for column in ALL
                for name in session.scalars(select(column).where(column.in_(names)))
            }
        return [name for name in names if name not in recorded and _job_of(name) not in busy]


def _is_ours(name: str) -> bool:
    return UPLOAD.fullmatch(name) is not None or OUTPUT.fullmatch(name) is not None


def _job_of(name: str) -> str:
    return name.partition("-")[0]
