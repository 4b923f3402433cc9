"""Accepts, shows and cancels jobs. Every change is one transaction."""

import json
import secrets
import time
from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, bindparam, delete, exists, func, select, true
from sqlalchemy.orm import Session

from darkroom.catalog.model_entry import NumberBytes
from darkroom.config import QueueSettings
from darkroom.engine.base import EngineMemory
from darkroom.errors import DarkroomError
from darkroom.images.codec import evenly
from darkroom.queue import snapshot, transitions
from darkroom.queue.snapshot import UNFINISHED
from darkroom.responses import Event, EventType, Job, JobStatus
from darkroom.storage.database import Database
from darkroom.storage.records import (
    Estimate,
    NewJob,
    Preview,
    StoredExplanation,
    StoredPicture,
    event_of,
    job_of,
    preview_of,
    shows,
)
from darkroom.storage.tables import (
    EventRow,
    ExplanationRow,
    ImageRow,
    JobRow,
    UploadRow,
    WebhookRow,
    WorkerRow,
)

MOST_TOGETHER = 1000  # jobs between the first and the last of one request
_PENDING = select(func.count().filter(JobRow.client == bindparam("client")), func.count()).where(
    JobRow.status.in_(UNFINISHED)
)

_NEEDS_CALLER = select(JobRow).where(
    JobRow.status.in_(UNFINISHED),
    JobRow.wanted_until.is_not(None),
    JobRow.cancel_requested.is_(False),
)


class PictureInUseError(DarkroomError):
    """An unfinished job works from this picture."""


@dataclass(eq=False)
class Store:
    """Jobs, records of images, and events. Safe to use from any number of threads.

    A method with an argument `client` finds only that client's jobs and images, or everybody's if
    it is None. Every method raises DatabaseUnavailableError while the database cannot be used; a
    method that writes has then written nothing.

    Attributes:
        clock: seconds since the epoch.
        new_id: makes ids that cannot be guessed.
    """

    database: Database
    clock: Callable[[], float] = time.time
    new_id: Callable[[], str] = lambda: secrets.token_hex(12)
    settings: QueueSettings = field(default_factory=QueueSettings)

    def accept(self, new: NewJob, awaited: Container[str] = ()) -> tuple[Job, bool]:
        """Put a job in the queue. It is on disk when this returns.

        Args:
            awaited: the ids of the jobs that somebody waits for.

        Returns:
            The job, and whether it is new. It is not if there is one with the same key,
            or an equal unfinished one and the new one collapses.

        Raises:
            IdempotencyConflictError: the key belongs to a different request.
            QueueFullError: the limit of all clients or of this one is reached.
            SourceGoneError: a picture that the job works from was deleted.
        """
        with self.database.write() as session:
            existing = transitions.existing(session, new, awaited)
            now = self.clock()
            if existing is not None:
                if existing.wanted_until is not None and new.wanted_s is not None:
                    existing.wanted_until = now + new.wanted_s
                return self._view(session, existing), False
            queue = snapshot.read(session, now, self.settings.max_in_flight_per_client, new.urgency)
            transitions.check_room(self.settings, queue, new.client)
            transitions.check_sources(session, new)
            return transitions.accept(session, queue, new, self.new_id(), now), True

    def check_room(self, client: str, idempotency_key: str | None) -> None:
        """Check for room in the queue before a request is parsed; `accept` checks again.

        Raises:
            QueueFullError: a limit is reached. Not raised for a key that was used before.
        """
        most_theirs, most = self.settings.max_pending_per_client, self.settings.max_pending
        with self.database.read() as session:
            theirs, all_clients = session.execute(_PENDING, {"client": client}).one()
            if theirs < most_theirs and all_clients < most:
                return
            if transitions.job_of_key(session, client, idempotency_key) is None:
                queue = snapshot.read(session, self.clock(), self.settings.max_in_flight_per_client)
                transitions.check_room(self.settings, queue, client)

    def cancel(self, job_id: str, client: str | None, *, frees_key: bool = False) -> Job | None:
        """Cancel a queued job now, and a running one at its next step. A finished job stays.

        Args:
            frees_key: whether the next request with this job's idempotency key makes a new job.

        Returns:
            The job as it is now, or None if it does not exist.
        """
        with self.database.write() as session:
            row = _job_row(session, job_id, client)
            if row is None:
                return None
            transitions.cancel(session, row, self.clock(), frees_key=frees_key)
            session.flush()
            return self._view(session, row)

    def keep_wanted(self, wanted_s: float) -> None:
        """Give the callers of all jobs that need one so many seconds to come back."""
        now = self.clock()
        with self.database.write() as session:
            for row in session.scalars(_NEEDS_CALLER):
                row.wanted_until = now + wanted_s

    def end_unwanted(self, held: Collection[str], left: Collection[str], wanted_s: float) -> int:
        """Cancel the jobs whose callers left `wanted_s` ago, and return their number.

        A caller who joined one since it was looked at has put its end off, see `accept`.

        Args:
            held: ids of jobs that somebody waits for.
            left: of those whose last caller left just now.
        """
        now = self.clock()
        latest = now + wanted_s

        def is_kept(row: JobRow, until: float) -> bool:
            late = row.id in held and until < latest - wanted_s / 2
            return row.id in left or late or until > latest  # a clock that was set back

        def is_over(row: JobRow, until: float) -> bool:
            return row.id not in held and until <= now

        with self.database.read() as session:  # mostly there is nothing to write
            found = [(row, row.wanted_until or 0.0) for row in session.scalars(_NEEDS_CALLER)]
            if not any(is_kept(*timed) or is_over(*timed) for timed in found):
                return 0
        ended = 0
        with self.database.write() as session:
            for row in session.scalars(_NEEDS_CALLER).all():
                until = row.wanted_until or 0.0
                if is_kept(row, until):
                    row.wanted_until = latest
                elif is_over(row, until):
                    transitions.cancel(session, row, now, frees_key=True)
                    ended += 1
        return ended

    # --- jobs ------------------------------------------------------------------------------

    def job(self, job_id: str, client: str | None) -> Job | None:
        """A job, or None if it does not exist."""
        with self.database.read() as session:
            row = _job_row(session, job_id, client)
            return None if row is None else self._view(session, row)

    def jobs(
        self, client: str | None, *, before: int | None, limit: int, status: JobStatus | None
    ) -> tuple[list[Job], int | None]:
        """A page of jobs, newest first.

        Args:
            before: the cursor returned with the page before, or None for the first page.

        Returns:
            The page, and the cursor for the next page, or None if this is the last one.
        """
        query = select(JobRow).where(_of(client)).order_by(JobRow.sequence.desc())
        if before is not None:
            query = query.where(JobRow.sequence < before)
        if status is not None:
            query = query.where(JobRow.status == status)
        with self.database.read() as session:
            rows = list(session.scalars(query.limit(limit + 1)))
            cursor = rows[limit - 1].sequence if len(rows) > limit else None
            return self._views(session, rows[:limit]), cursor

    def current_request(self, client: str, api: str) -> list[Job]:
        """The jobs of a client's request over a foreign API that is worked on, oldest first.

        That is the one of a running job, else the one that waits for longest. With the jobs of it
        that have ended; empty if there is none.
        """
        mine = (JobRow.client == client, JobRow.api == api)
        waiting = select(JobRow).where(*mine, JobRow.status.in_(UNFINISHED))
        with self.database.read() as session:
            rows = session.scalars(waiting.order_by(JobRow.sequence).limit(MOST_TOGETHER)).all()
            running = (row for row in rows if row.status == JobStatus.RUNNING)
            first = next(running, rows[0] if rows else None)
            if first is None:
                return []
            since = JobRow.sequence > first.sequence - MOST_TOGETHER  # no index has requests
            same = select(JobRow).where(*mine, JobRow.request_id == first.request_id, since)
            return self._views(session, session.scalars(same.order_by(JobRow.sequence)).all())

    def _view(self, session: Session, row: JobRow) -> Job:
        return self._views(session, [row])[0]

    def _views(self, session: Session, rows: Sequence[JobRow]) -> list[Job]:
        """The wire form of jobs, with images, estimates and webhooks, in the order of the rows."""
        images: dict[str, list[ImageRow]] = {row.id: [] for row in rows}
        for image in session.scalars(select(ImageRow).where(ImageRow.job_id.in_(images))):
            images[image.job_id].append(image)
        query = select(WebhookRow).where(WebhookRow.job_id.in_(images))
        webhooks = {webhook.job_id: webhook for webhook in session.scalars(query)}
        unfinished = [row.sequence for row in rows if row.status in UNFINISHED]
        found = self._estimates(session, unfinished)
        return [
            job_of(row, images[row.id], found.get(row.sequence, Estimate()), webhooks.get(row.id))
            for row in rows
        ]

    def eta_errors(self, limit: int) -> list[float]:
        """The errors of the estimates made at acceptance, of the latest jobs that succeeded.

        Returns:
            |predicted − actual| ÷ actual seconds from acceptance to success, the latest job first.
        """
        query = (
            select(JobRow.predicted_s, JobRow.created_at, JobRow.finished_at)
            .where(JobRow.status == JobStatus.SUCCEEDED, JobRow.predicted_s.is_not(None))
            .order_by(JobRow.sequence.desc())
            .limit(limit)
        )
        errors = []
        with self.database.read() as session:
            for predicted, accepted, ended in session.execute(query):
                # A clock that was set back can make the actual time zero or negative.
                if predicted is not None and ended is not None and ended > accepted:
                    actual = ended - accepted
                    errors.append(abs(predicted - actual) / actual)
        return errors

    def owners(self, job_ids: set[str]) -> dict[str, str]:
        """The client of each job."""
        with self.database.read() as session:
            rows = session.execute(select(JobRow.id, JobRow.client).where(JobRow.id.in_(job_ids)))
            return dict(rows.all())

    def workers(self) -> list[tuple[str, bool, str]]:
        """Id, readiness and device of the workers whose lease has not expired."""
        alive = WorkerRow.lease_until > self.clock()
        with self.database.read() as session:
            columns = select(WorkerRow.id, WorkerRow.ready, WorkerRow.device)
            rows = session.execute(columns.where(alive).order_by(WorkerRow.id))
            return [(row.id, row.ready, row.device) for row in rows]

    def may_have_gpu(self) -> bool:
        """Whether a worker has a GPU; also true while there is no worker that would know."""
        devices = [device for _, _, device in self.workers()]
        return not devices or any(device != "cpu" for device in devices)

    def broken_models(self) -> dict[str, str]:
        """Models that a worker could not load, with the reason, until their files change."""
        alive = WorkerRow.lease_until > self.clock()
        with self.database.read() as session:
            found: dict[str, str] = {}
            for broken in session.scalars(select(WorkerRow.broken).where(alive)):
                found |= json.loads(broken)
            return found

    def memory(self) -> list[EngineMemory]:
        """What models take of the memory of each worker whose lease has not expired."""
        alive = WorkerRow.lease_until > self.clock()
        with self.database.read() as session:
            rows = session.scalars(select(WorkerRow.memory).where(alive).order_by(WorkerRow.id))
            found = [json.loads(row) for row in rows]
        return [
            EngineMemory(**{**each, "number_bytes": NumberBytes(**each["number_bytes"])})
            for each in found
            if each
        ]

    def has_ended(self, job_id: str) -> bool:
        """Whether a job is finished or deleted."""
        unfinished = (JobRow.id == job_id, JobRow.status.in_(UNFINISHED))
        with self.database.read() as session:
            return session.scalar(select(JobRow.id).where(*unfinished)) is None

    def estimates(self, job_ids: set[str]) -> dict[str, Estimate]:
        """Positions and ETAs of those of the jobs that are queued."""
        queued = (JobRow.id.in_(job_ids), JobRow.status == JobStatus.QUEUED)
        with self.database.read() as session:
            ids = dict(session.execute(select(JobRow.sequence, JobRow.id).where(*queued)).all())
            known = self._estimates(session, ids)
        return {ids[sequence]: estimate for sequence, estimate in known.items()}

    def _estimates(self, session: Session, numbers: Collection[int]) -> dict[int, Estimate]:
        per_client = self.settings.max_in_flight_per_client
        return snapshot.estimates(session, self.clock(), per_client, numbers)

    # --- pictures --------------------------------------------------------------------------

    def picture(self, picture_id: str, client: str | None) -> StoredPicture | None:
        """An image or an upload, or None if it does not exist."""
        with self.database.read() as session:
            row = _picture_row(session, picture_id, client)
            if row is None:
                return None
            content_type = row.content_type if isinstance(row, ImageRow) else "image/png"
            return StoredPicture(row.id, content_type, row.sha256, row.width, row.height)

    def explanations(self, job_id: str) -> list[StoredExplanation]:
        """How the images of a job were made, those that say it, in the images' order."""
        query = select(ExplanationRow).where(ExplanationRow.job_id == job_id)
        with self.database.read() as session:
            return [
                StoredExplanation(row.id, row.index, row.sha256)
                for row in session.scalars(query.order_by(ExplanationRow.index))
            ]

    def delete_picture(self, picture_id: str, client: str | None) -> tuple[str, ...]:
        """Delete the record of an image or upload; the caller deletes the files.

        An image's previews and its explanation are deleted with it. Returns the names of the
        files, none if there was no such record.

        Raises:
            PictureInUseError: an unfinished job has it as a source.
        """
        with self.database.write() as session:
            row = _picture_row(session, picture_id, client)
            if row is None:
                return ()
            refers = JobRow.request.contains(f'"image:{picture_id}"', autoescape=True)
            users = select(JobRow.id).where(JobRow.status.in_(UNFINISHED), refers)
            if session.scalar(users.limit(1)) is not None:
                raise PictureInUseError(picture_id)
            if isinstance(row, ImageRow):
                of_job = (EventRow.job_id == row.job_id, EventRow.type == EventType.PREVIEW)
                session.execute(delete(EventRow).where(*of_job, shows(row.index)))
            of_image = delete(ExplanationRow).where(ExplanationRow.image_id == picture_id)
            texts = session.scalars(of_image.returning(ExplanationRow.id)).all()
            session.delete(row)
            return picture_id, *texts

    # --- events ----------------------------------------------------------------------------

    def events_after(
        self,
        event_id: int,
        job_id: str | None = None,
        limit: int = 500,
        client: str | None = None,
    ) -> list[Event]:
        """Events with greater ids, the oldest first; of one job or client, or of all if None."""
        query = select(EventRow).where(EventRow.id > event_id).order_by(EventRow.id).limit(limit)
        if job_id is not None:
            query = query.where(EventRow.job_id == job_id)
        if client is not None:
            query = query.where(exists().where(JobRow.id == EventRow.job_id, _of(client)))
        with self.database.read() as session:
            return [event_of(row) for row in session.scalars(query)]

    def previews(self, job_id: str, limit: int, index: int = 0) -> list[Preview]:
        """The previews of an image of a job, of its last attempt, oldest first.

        There are at most `limit`, evenly chosen.
        """
        of_job = EventRow.job_id == job_id
        with self.database.read() as session:
            began = session.scalar(
                select(func.max(EventRow.id)).where(of_job, EventRow.type == EventType.QUEUED)
            )
            ids = session.scalars(
                select(EventRow.id)
                .where(of_job, EventRow.type == EventType.PREVIEW, EventRow.id > began)
                .where(shows(index))
                .order_by(EventRow.id)
            ).all()
            chosen = select(EventRow).where(EventRow.id.in_(evenly(ids, limit)))
            return [preview_of(row) for row in session.scalars(chosen.order_by(EventRow.id))]

    def last_preview(self, job_id: str) -> Preview | None:
        """The newest preview of a job's first image, or None if there is none."""
        newest = (
            select(EventRow)
            .where(EventRow.job_id == job_id, EventRow.type == EventType.PREVIEW, shows(0))
            .order_by(EventRow.id.desc())
            .limit(1)
        )
        with self.database.read() as session:
            row = session.scalar(newest)
            return None if row is None else preview_of(row)

    def last_event_id(self) -> int:
        """The id of the newest event, or 0."""
        with self.database.read() as session:
            return session.scalar(select(func.max(EventRow.id))) or 0


def _of(client: str | None) -> ColumnElement[bool]:
    """The condition that a job is this client's; None is everybody."""
    return true() if client is None else JobRow.client == client


def _job_row(session: Session, job_id: str, client: str | None) -> JobRow | None:
    return session.scalar(select(JobRow).where(JobRow.id == job_id, _of(client)))


def _picture_row(
    session: Session, picture_id: str, client: str | None
) -> ImageRow | UploadRow | None:
    upload = select(UploadRow).where(UploadRow.id == picture_id)
    return session.scalar(
        select(ImageRow)
        .join(JobRow, JobRow.id == ImageRow.job_id)
        .where(ImageRow.id == picture_id, _of(client))
    ) or session.scalar(upload if client is None else upload.where(UploadRow.client == client))
