"""Deletes old jobs with their images when a limit is reached, the oldest first.

Records are deleted first, one transaction a batch, then the files. A crash in between leaves
orphaned files, which the next start moves aside.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, TypeVar

import structlog
from sqlalchemy import Select, delete, func, select, tuple_
from sqlalchemy.orm import Session

from darkroom.config import RetentionSettings
from darkroom.queue.snapshot import UNFINISHED
from darkroom.responses import EventType
from darkroom.storage import totals
from darkroom.storage.database import Database
from darkroom.storage.files import Files
from darkroom.storage.tables import (
    FROM_PICTURES,
    EventRow,
    ExplanationRow,
    ImageRow,
    JobRow,
    PairingCodeRow,
    UploadRow,
    WebhookRow,
    WorkerRow,
)

log = structlog.get_logger()

T = TypeVar("T")

DAY_S = 86_400.0
BATCH = 50  # jobs in one transaction: others wait for its end
PAGE = 200  # jobs that are read at once, to see whether they are to go
YOUNG_S = 3_600.0  # an upload younger than this may not have its job yet
REFERENCE = re.compile(r'"image:([0-9a-zA-Z-]+)"')


@dataclass(frozen=True)
class Swept:
    """The numbers of deleted things."""

    jobs: int
    pictures: int
    uploads: int
    previews: int
    orphans: int


@dataclass(eq=False)
class Retention:
    """Deletes what exceeds the limits of the settings.

    A job is kept while an unfinished job uses one of its images as source or mask. An upload is
    kept as long as a job that used it.

    Attributes:
        files: uploads and images.
        orphans: orphaned files.
        clock: seconds since the epoch.
    """

    database: Database
    files: Files
    orphans: Files
    settings: RetentionSettings
    clock: Callable[[], float] = time.time
    _previews_until: float = field(default=0.0, init=False)  # previews of older jobs are gone

    def sweep(self) -> Swept:
        """Delete everything that exceeds a limit.

        Raises:
            DatabaseUnavailableError: the database cannot be used now.
            OSError: a file cannot be deleted.
        """
        jobs = pictures = 0
        for batch in self._surplus():
            deleted, names, texts = self._forget(batch)
            jobs, pictures = jobs + deleted, pictures + len(names)
            for name in (*names, *texts):
                self.files.delete(name)
        uploads, previews, orphans = self._uploads(), self._previews(), 0
        now = self.clock()
        if self.settings.orphan_days:
            orphans = self.orphans.delete_older(now - self.settings.orphan_days * DAY_S)
        with self.database.write(durable=False) as session:
            session.execute(delete(PairingCodeRow).where(PairingCodeRow.expires_at < now))
            gone = (WorkerRow.lease_until < now - DAY_S, WorkerRow.seen_at < now - DAY_S)
            # One that is told to drain does so when it comes back.
            session.execute(delete(WorkerRow).where(*gone, WorkerRow.draining.is_(False)))
        swept = Swept(jobs, pictures, uploads, previews, orphans)
        if any(vars(swept).values()):
            log.info("old data was deleted", **vars(swept))
            self.database.shrink_log()
        return swept

    @property
    def _limited(self) -> bool:
        limits = self.settings
        return bool(limits.max_age_days or limits.max_pictures or limits.max_bytes)

    def _surplus(self) -> Iterator[Sequence[str]]:
        """The ids of finished jobs to delete, the oldest first, in batches."""
        settings = self.settings
        if not self._limited:
            return
        oldest = self.clock() - settings.max_age_days * DAY_S if settings.max_age_days else 0.0
        chosen = []
        with self.database.read() as session:
            stored = totals.read(session)
            pictures, size = stored.pictures, stored.bytes
            uploads = _Uploads(session)
            for job in _ended(session):
                too_many = bool(settings.max_pictures) and pictures > settings.max_pictures
                too_large = bool(settings.max_bytes) and size > settings.max_bytes
                if not (job.finished_at < oldest or too_many or too_large):
                    break
                chosen.append(job.id)
                pictures -= job.pictures
                if settings.max_bytes:
                    size -= job.bytes + uploads.freed_with(job.id)
        yield from _batches(chosen)

    def _forget(self, job_ids: Sequence[str]) -> tuple[int, list[str], Sequence[str]]:
        """Delete the records of jobs; their number, and the names of images and explanations."""
        with self.database.write() as session:
            unfinished = select(JobRow.id, JobRow.request).where(JobRow.status.in_(UNFINISHED))
            needed = set().union(*_sources(session, unfinished).values())
            images = session.execute(
                select(ImageRow.job_id, ImageRow.id).where(ImageRow.job_id.in_(job_ids))
            ).all()
            stay = {job_id for job_id, name in images if name in needed}
            go = [job_id for job_id in job_ids if job_id not in stay]
            texts = session.scalars(
                delete(ExplanationRow)
                .where(ExplanationRow.job_id.in_(go))
                .returning(ExplanationRow.id)
            ).all()
            session.execute(delete(ImageRow).where(ImageRow.job_id.in_(go)))
            session.execute(delete(EventRow).where(EventRow.job_id.in_(go)))
            session.execute(delete(WebhookRow).where(WebhookRow.job_id.in_(go)))
            session.execute(delete(JobRow).where(JobRow.id.in_(go)))
        return len(go), [name for job_id, name in images if job_id not in stay], texts

    def _uploads(self) -> int:
        """Delete uploads that no job uses any more. Returns their number."""
        if not self._limited:
            return 0
        with self.database.read() as session:
            old = select(UploadRow.id).where(UploadRow.created_at < self.clock() - YOUNG_S)
            names = session.scalars(old).all()
            if not names:
                return 0
            last = session.scalar(select(func.max(JobRow.sequence))) or 0
            used = set().union(*_sources(session, select(JobRow.id, JobRow.request)).values())
            unused = [name for name in names if name not in used]
        deleted = 0
        for batch in _batches(unused):
            with self.database.write() as session:
                since = select(JobRow.id, JobRow.request).where(JobRow.sequence > last)
                used = set().union(*_sources(session, since).values())
                go = [name for name in batch if name not in used]
                session.execute(delete(UploadRow).where(UploadRow.id.in_(go)))
            for name in go:
                self.files.delete(name)
            deleted += len(go)
        return deleted

    def _previews(self) -> int:
        """Delete the previews of jobs that ended long ago. Returns their number."""
        if not self.settings.preview_days:
            return 0
        until = self.clock() - self.settings.preview_days * DAY_S
        ended = select(JobRow.id).where(
            JobRow.finished_at >= self._previews_until, JobRow.finished_at < until
        )
        with self.database.read() as session:
            jobs = session.scalars(ended).all()
        deleted = 0
        for batch in _batches(jobs):
            of_batch = select(EventRow.id).where(
                EventRow.job_id.in_(batch), EventRow.type == EventType.PREVIEW
            )
            with self.database.read() as session:
                ids = session.scalars(of_batch).all()
            for some in _batches(ids, 500):
                with self.database.write(durable=False) as session:
                    session.execute(delete(EventRow).where(EventRow.id.in_(some)))
            deleted += len(ids)
        self._previews_until = until
        return deleted


class Janitor(threading.Thread):
    """A thread that calls `sweep` at once and then every `every_s` seconds. Errors are logged."""

    def __init__(self, sweep: Callable[[], object], every_s: float) -> None:
        super().__init__(name="janitor", daemon=True)
        self._sweep = sweep
        self._every_s = every_s
        self._stopping = threading.Event()

    def run(self) -> None:
        while True:
            try:
                self._sweep()
            except Exception:
                log.exception("old data could not be deleted")  # tried again later
            if self._stopping.wait(self._every_s):
                return

    def stop(self) -> None:
        self._stopping.set()
        self.join()


class _Ended(NamedTuple):
    """An ended job, and what its images and explanations take."""

    id: str
    finished_at: float
    pictures: int
    bytes: int


def _ended(session: Session) -> Iterator[_Ended]:
    """The ended jobs, the oldest first, read page by page."""
    made = [
        select(value).where(ImageRow.job_id == JobRow.id).scalar_subquery()
        for value in (func.count(), func.coalesce(func.sum(ImageRow.bytes), 0))
    ]
    explained = (
        select(func.coalesce(func.sum(ExplanationRow.bytes), 0))
        .where(ExplanationRow.job_id == JobRow.id)
        .scalar_subquery()
    )
    jobs = (
        select(JobRow.id, JobRow.finished_at, JobRow.sequence, *made, explained)
        .where(JobRow.finished_at.is_not(None))
        .order_by(JobRow.finished_at, JobRow.sequence)
        .limit(PAGE)
    )
    page = session.execute(jobs).all()
    while page:
        for job_id, finished_at, _, pictures, size, texts in page:
            yield _Ended(job_id, finished_at or 0.0, pictures, size + texts)
        last = tuple_(*page[-1][1:3])
        after = jobs.where(tuple_(JobRow.finished_at, JobRow.sequence) > last)
        page = session.execute(after).all()


class _Uploads:
    """Which uploads nobody uses any more as jobs go. Reads who uses them when it is first asked."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def _sources(self) -> dict[str, set[str]]:
        return _sources(self._session, select(JobRow.id, JobRow.request))

    @cached_property
    def _uses(self) -> Counter[str]:
        return Counter(name for names in self._sources.values() for name in names)

    @cached_property
    def _weights(self) -> dict[str, int]:
        return dict(self._session.execute(select(UploadRow.id, UploadRow.bytes)).all())

    def freed_with(self, job_id: str) -> int:
        """Bytes of the uploads that this job was the last to use."""
        freed = 0
        for name in self._sources.get(job_id, ()):
            self._uses[name] -= 1
            freed += 0 if self._uses[name] else self._weights.get(name, 0)
        return freed


def _sources(session: Session, jobs: Select[str, str]) -> dict[str, set[str]]:
    """The names of the images that jobs use as source or mask, by job.

    Args:
        jobs: a query for ids and requests. Requests are not parsed, because there may be very many.
    """
    from_pictures = jobs.where(FROM_PICTURES)
    return {
        job_id: set(REFERENCE.findall(request))
        for job_id, request in session.execute(from_pictures)
    }


def _batches(items: Sequence[T], size: int = BATCH) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
