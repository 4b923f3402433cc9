"""What is too old or too much is deleted: whole jobs, the oldest first.

Records go first, in one transaction a batch, then files: what is interrupted in between leaves
files that belong to nothing, which the next start puts aside.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog
from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from darkroom.config import RetentionSettings
from darkroom.queue.snapshot import UNFINISHED
from darkroom.requests import Task
from darkroom.responses import EventType
from darkroom.storage.database import Database
from darkroom.storage.files import Files
from darkroom.storage.tables import (
    EventRow,
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
YOUNG_S = 3_600.0  # an upload of this age may be about to be used
REFERENCE = re.compile(r'"image:([0-9a-zA-Z-]+)"')


@dataclass(frozen=True)
class Swept:
    """What was deleted, by count."""

    jobs: int
    pictures: int
    uploads: int
    previews: int
    orphans: int


class Retention:
    """Deletes what the settings no longer want kept.

    A job whose picture an unfinished job works from stays until that has ended. An upload stays
    as long as any job was made from it.

    Args:
        database: migrated.
        files: uploads and pictures.
        orphans: where files that belong to nothing were put.
        settings: how long and how much to keep.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        files: Files,
        orphans: Files,
        settings: RetentionSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._files = files
        self._orphans = orphans
        self._settings = settings
        self._clock = clock
        self._previews_until = 0.0  # previews of jobs that ended before are gone

    def sweep(self) -> Swept:
        """Delete what is due."""
        jobs = pictures = 0
        for batch in self._surplus():
            deleted, names = self._forget(batch)
            jobs, pictures = jobs + deleted, pictures + len(names)
            for name in names:
                self._files.delete(name)
        swept = Swept(jobs, pictures, self._uploads(), self._previews(), self._old_orphans())
        self._lapsed()
        if any(vars(swept).values()):
            log.info("what was no longer to be kept was deleted", **vars(swept))
            self._database.shrink_log()
        return swept

    # --- jobs ------------------------------------------------------------------------------

    def _surplus(self) -> Iterator[Sequence[str]]:
        """Ids of ended jobs that have to go, the oldest first, in batches."""
        settings = self._settings
        if not self._limited:
            return
        oldest = self._clock() - settings.max_age_days * DAY_S if settings.max_age_days else 0.0
        with self._database.read() as session:
            sources = _sources(session, select(JobRow.id, JobRow.request))
            weights = dict(session.execute(select(UploadRow.id, UploadRow.bytes)).all())
            made = {
                job_id: (count, size)
                for job_id, count, size in session.execute(
                    select(ImageRow.job_id, func.count(), func.sum(ImageRow.bytes)).group_by(
                        ImageRow.job_id
                    )
                )
            }
            ended = session.execute(
                select(JobRow.id, JobRow.finished_at)
                .where(JobRow.status.not_in(UNFINISHED), JobRow.finished_at.is_not(None))
                .order_by(JobRow.finished_at, JobRow.sequence)
            ).all()
        uses = Counter(name for names in sources.values() for name in names)
        pictures = sum(count for count, _ in made.values())
        size = sum(size for _, size in made.values()) + sum(weights.values())
        chosen = []
        for job_id, finished_at in ended:
            too_many = bool(settings.max_pictures) and pictures > settings.max_pictures
            too_large = bool(settings.max_bytes) and size > settings.max_bytes
            if not ((finished_at or 0.0) < oldest or too_many or too_large):
                break
            chosen.append(job_id)
            count, weight = made.get(job_id, (0, 0))
            pictures, size = pictures - count, size - weight
            for name in sources.get(job_id, ()):
                uses[name] -= 1
                size -= 0 if uses[name] else weights.get(name, 0)
        yield from _batches(chosen)

    @property
    def _limited(self) -> bool:
        settings = self._settings
        return bool(settings.max_age_days or settings.max_pictures or settings.max_bytes)

    def _forget(self, job_ids: Sequence[str]) -> tuple[int, list[str]]:
        """Delete the records of jobs: how many, and the names of their pictures."""
        with self._database.write() as session:
            unfinished = select(JobRow.id, JobRow.request).where(JobRow.status.in_(UNFINISHED))
            needed = set().union(*_sources(session, unfinished).values())
            images = session.execute(
                select(ImageRow.job_id, ImageRow.id).where(ImageRow.job_id.in_(job_ids))
            ).all()
            stay = {job_id for job_id, name in images if name in needed}
            go = [job_id for job_id in job_ids if job_id not in stay]
            session.execute(delete(ImageRow).where(ImageRow.job_id.in_(go)))
            session.execute(delete(EventRow).where(EventRow.job_id.in_(go)))
            session.execute(delete(WebhookRow).where(WebhookRow.job_id.in_(go)))
            session.execute(delete(JobRow).where(JobRow.id.in_(go)))
        return len(go), [name for job_id, name in images if job_id not in stay]

    def _uploads(self) -> int:
        """Delete uploads that no job was made from any more; how many."""
        if not self._limited:
            return 0
        with self._database.read() as session:
            last = session.scalar(select(func.max(JobRow.sequence))) or 0
            used = set().union(*_sources(session, select(JobRow.id, JobRow.request)).values())
            old = UploadRow.created_at < self._clock() - YOUNG_S
            unused = [
                name
                for name in session.scalars(select(UploadRow.id).where(old))
                if name not in used
            ]
        deleted = 0
        for batch in _batches(unused):
            with self._database.write() as session:
                since = select(JobRow.id, JobRow.request).where(JobRow.sequence > last)
                used = set().union(*_sources(session, since).values())
                go = [name for name in batch if name not in used]
                session.execute(delete(UploadRow).where(UploadRow.id.in_(go)))
            for name in go:
                self._files.delete(name)
            deleted += len(go)
        return deleted

    # --- the rest --------------------------------------------------------------------------

    def _previews(self) -> int:
        """Delete the previews of jobs that ended long ago; how many."""
        if not self._settings.preview_days:
            return 0
        until = self._clock() - self._settings.preview_days * DAY_S
        ended = select(JobRow.id).where(
            JobRow.finished_at >= self._previews_until, JobRow.finished_at < until
        )
        with self._database.read() as session:
            jobs = session.scalars(ended).all()
        deleted = 0
        for batch in _batches(jobs):
            of_batch = select(EventRow.id).where(
                EventRow.job_id.in_(batch), EventRow.type == EventType.PREVIEW
            )
            with self._database.read() as session:
                ids = session.scalars(of_batch).all()
            for some in _batches(ids, 500):
                with self._database.write(durable=False) as session:
                    session.execute(delete(EventRow).where(EventRow.id.in_(some)))
            deleted += len(ids)
        self._previews_until = until
        return deleted

    def _old_orphans(self) -> int:
        days = self._settings.orphan_days
        return self._orphans.delete_older(self._clock() - days * DAY_S) if days else 0

    def _lapsed(self) -> None:
        """Forget pairing codes that are good for nothing, and workers that are long gone."""
        now = self._clock()
        with self._database.write(durable=False) as session:
            session.execute(delete(PairingCodeRow).where(PairingCodeRow.expires_at < now))
            session.execute(delete(WorkerRow).where(WorkerRow.lease_until < now - DAY_S))


class Janitor:
    """Sweeps from a thread of its own: at once, and then again and again.

    Args:
        sweep: what is to be done.
        every_s: seconds in between.
    """

    def __init__(self, sweep: Callable[[], object], every_s: float) -> None:
        self._sweep = sweep
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="janitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _work(self) -> None:
        while True:
            try:
                self._sweep()
            except Exception:
                log.exception("what is too old could not be deleted")  # perhaps next time
            if self._stopping.wait(self._every_s):
                return


def _sources(session: Session, jobs: Select[str, str]) -> dict[str, set[str]]:
    """Names of the pictures that jobs are made from, by job.

    Args:
        session: to read in.
        jobs: their ids and requests, which are not parsed: there may be very many.
    """
    from_pictures = jobs.where(JobRow.task != Task.TXT2IMG)
    return {
        job_id: set(REFERENCE.findall(request))
        for job_id, request in session.execute(from_pictures)
    }


def _batches(items: Sequence[T], size: int = BATCH) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
