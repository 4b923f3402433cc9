"""What web does with the queue: accept, show, cancel. Every change is one transaction."""

import math
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

from sqlalchemy import ColumnElement, delete, func, select, true
from sqlalchemy.orm import Session

from darkroom.config import QueueSettings
from darkroom.errors import DarkroomError
from darkroom.images.timeline import evenly
from darkroom.queue import snapshot
from darkroom.queue.snapshot import UNFINISHED, QueueSnapshot
from darkroom.queue.transitions import end, enqueue, view, views
from darkroom.responses import Event, EventType, Job, JobStatus, WebhookState
from darkroom.storage.database import Database
from darkroom.storage.records import (
    Estimate,
    NewJob,
    Preview,
    StoredPicture,
    event_of,
    preview_of,
)
from darkroom.storage.tables import (
    EventRow,
    ImageRow,
    JobRow,
    UploadRow,
    WebhookRow,
    WorkerRow,
)

UNKNOWN_RETRY_S = 5
MAX_RETRY_S = 600


class IdempotencyConflictError(DarkroomError):
    """The key was used before, for something else."""


class QueueFullError(DarkroomError):
    """There are as many unfinished jobs as there may be.

    Attributes:
        whose: of all clients, or of this one.
        pending: how many there are.
        retry_after_s: when the first of them is expected to end.
    """

    def __init__(self, whose: Literal["all", "client"], pending: int, retry_after_s: int) -> None:
        super().__init__(f"{pending} jobs are pending")
        self.whose = whose
        self.pending = pending
        self.retry_after_s = retry_after_s


class Store:
    """Jobs, pictures' records and events, for any number of threads.

    Where a method takes a `client`, it finds only what is that client's; None finds everybody's.

    Args:
        database: migrated.
        clock: seconds since the epoch.
        new_id: makes unguessable ids.
        settings: caps; the defaults if there are none.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: secrets.token_hex(12),
        settings: QueueSettings | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._settings = settings or QueueSettings()

    def accept(self, new: NewJob) -> tuple[str, bool]:
        """Put a job in the queue. It is on disk when this returns.

        Returns:
            The job's id, and whether it is new rather than an earlier one with the same key, or
            one that it collapses into.

        Raises:
            IdempotencyConflictError: the key belongs to a different request.
            QueueFullError: this one would be too many.
        """
        with self._database.write() as session:
            earlier = _earlier(session, new)
            if earlier is not None:
                return earlier, False
            queue = self._snapshot(session)
            self._check_room(session, new.client, queue.pending)
            return self._insert(session, queue, new), True

    def check_room(self, client: str, idempotency_key: str | None) -> None:
        """Refuse what `accept` would refuse, before anything is spent on it.

        Raises:
            QueueFullError: one more would be too many. Not raised for a key that was used before.
        """
        with self._database.read() as session:
            if idempotency_key is None or _of_key(session, client, idempotency_key) is None:
                self._check_room(session, client, snapshot.count_pending(session))

    def _snapshot(self, session: Session) -> QueueSnapshot:
        return snapshot.read(session, self._clock(), self._settings.max_in_flight_per_client)

    def _check_room(self, session: Session, client: str, pending: Counter[str]) -> None:
        mine, everybodys = pending[client], pending.total()
        whose: Literal["all", "client"]
        if mine >= self._settings.max_pending_per_client:
            whose, count = "client", mine
        elif everybodys >= self._settings.max_pending:
            whose, count = "all", everybodys
        else:
            return
        end_s = self._snapshot(session).first_end(client if whose == "client" else None)
        retry_s = UNKNOWN_RETRY_S if end_s is None else math.ceil(end_s)
        raise QueueFullError(whose, count, min(max(1, retry_s), MAX_RETRY_S))

    def _insert(self, session: Session, queue: QueueSnapshot, new: NewJob) -> str:
        now = self._clock()
        estimate = snapshot.newcomer(session, queue, new.client, new.urgency, new.workload)
        for upload in new.uploads:
            session.add(UploadRow(client=new.client, created_at=now, **vars(upload)))
        row = JobRow(
            id=self._new_id(),
            client=new.client,
            client_name=new.client_name,
            urgency=new.urgency,
            request_id=new.request_id,
            task=new.request.task,
            status=JobStatus.QUEUED,
            request=new.request.model_dump_json(exclude_none=True),
            **vars(new.workload),
            fingerprint=new.fingerprint,
            idempotency_key=new.idempotency_key,
            created_at=now,
            predicted_s=estimate.eta_seconds,
        )
        session.add(row)
        session.flush()
        if new.webhook is not None:
            session.add(
                WebhookRow(
                    job_id=row.id,
                    url=new.webhook.url,
                    origin=new.webhook.origin,
                    state=WebhookState.WAITING,
                )
            )
        snapshot.join(session, queue, new.client)
        enqueue(session, row, now, estimate)
        return row.id

    def cancel(self, job_id: str, client: str | None) -> Job | None:
        """Cancel a queued job now, a running one at its next step; a finished one stays as it is.

        Returns:
            The job as it is now, or None if there is none of that id.
        """
        with self._database.write() as session:
            row = _job_row(session, job_id, client)
            if row is None:
                return None
            if row.status == JobStatus.QUEUED:
                end(session, row, self._clock(), JobStatus.CANCELLED)
            elif row.status == JobStatus.RUNNING:
                row.cancel_requested = True
            session.flush()
            return self._view(session, row)

    def _view(self, session: Session, row: JobRow) -> Job:
        return view(session, row, self._clock(), self._settings.max_in_flight_per_client)

    # --- jobs ------------------------------------------------------------------------------

    def job(self, job_id: str, client: str | None) -> Job | None:
        """A job."""
        with self._database.read() as session:
            row = _job_row(session, job_id, client)
            return None if row is None else self._view(session, row)

    def jobs(
        self, client: str | None, *, before: int | None, limit: int, status: JobStatus | None
    ) -> tuple[list[Job], int | None]:
        """A page of jobs, newest first.

        Args:
            client: whose.
            before: the cursor of the page before this one, or None for the first.
            limit: of jobs on the page.
            status: only these.

        Returns:
            The page, and the cursor of the next one if there is one.
        """
        query = select(JobRow).where(_of(client)).order_by(JobRow.sequence.desc())
        if before is not None:
            query = query.where(JobRow.sequence < before)
        if status is not None:
            query = query.where(JobRow.status == status)
        with self._database.read() as session:
            rows = list(session.scalars(query.limit(limit + 1)))
            jobs = views(
                session, rows[:limit], self._clock(), self._settings.max_in_flight_per_client
            )
            return jobs, rows[limit - 1].sequence if len(rows) > limit else None

    def unfinished(self, client: str, limit: int = 100) -> list[Job]:
        """What a client waits for, the oldest first."""
        waiting = (JobRow.client == client, JobRow.status.in_(UNFINISHED))
        query = select(JobRow).where(*waiting).order_by(JobRow.sequence).limit(limit)
        with self._database.read() as session:
            rows = list(session.scalars(query))
            return views(session, rows, self._clock(), self._settings.max_in_flight_per_client)

    def eta_errors(self, limit: int) -> list[float]:
        """How far off the estimates were that accepted jobs were given, the latest job first.

        Args:
            limit: of jobs.

        Returns:
            |foreseen − actual| ÷ actual, from acceptance to success.
        """
        query = (
            select(JobRow.predicted_s, JobRow.created_at, JobRow.finished_at)
            .where(JobRow.status == JobStatus.SUCCEEDED, JobRow.predicted_s.is_not(None))
            .order_by(JobRow.sequence.desc())
            .limit(limit)
        )
        errors = []
        with self._database.read() as session:
            for foreseen, accepted, ended in session.execute(query):
                # A clock that was set back in between can make the actual time nothing or less.
                if foreseen is not None and ended is not None and ended > accepted:
                    actual = ended - accepted
                    errors.append(abs(foreseen - actual) / actual)
        return errors

    def owners(self, job_ids: set[str]) -> dict[str, str]:
        """The client of each job."""
        with self._database.read() as session:
            rows = session.execute(select(JobRow.id, JobRow.client).where(JobRow.id.in_(job_ids)))
            return {name: value for name, value in rows}  # noqa: C416

    def workers(self) -> list[tuple[str, bool, str]]:
        """Id, readiness and device of the workers whose lease has not lapsed."""
        alive = WorkerRow.lease_until > self._clock()
        with self._database.read() as session:
            rows = session.scalars(select(WorkerRow).where(alive).order_by(WorkerRow.id))
            return [(row.id, row.ready, row.device) for row in rows]

    def has_ended(self, job_id: str) -> bool:
        """Whether a job has come to one of its ends, or is no more."""
        going_on = (JobRow.id == job_id, JobRow.status.in_(UNFINISHED))
        with self._database.read() as session:
            return session.scalar(select(JobRow.id).where(*going_on)) is None

    def estimates(self, job_ids: set[str]) -> dict[str, Estimate]:
        """What those of the jobs that are queued may expect."""
        queued = (JobRow.id.in_(job_ids), JobRow.status == JobStatus.QUEUED)
        with self._database.read() as session:
            found = session.execute(select(JobRow.sequence, JobRow.id).where(*queued)).all()
            numbers = [sequence for sequence, _ in found]
            known = snapshot.estimates(
                session, self._clock(), self._settings.max_in_flight_per_client, numbers
            )
        return {job_id: known[sequence] for sequence, job_id in found}

    # --- pictures --------------------------------------------------------------------------

    def picture(self, picture_id: str, client: str | None) -> StoredPicture | None:
        """An output or an upload."""
        with self._database.read() as session:
            row = _picture_row(session, picture_id, client)
            if row is None:
                return None
            content_type = row.content_type if isinstance(row, ImageRow) else "image/png"
            return StoredPicture(row.id, content_type, row.sha256, row.width, row.height)

    def delete_picture(self, picture_id: str, client: str | None) -> bool:
        """Forget a picture; its bytes are the caller's to delete. Returns whether it was there.

        Previews show a job's first picture, and go with it.
        """
        with self._database.write() as session:
            row = _picture_row(session, picture_id, client)
            if row is None:
                return False
            if isinstance(row, ImageRow) and row.index == 0:
                session.execute(
                    delete(EventRow).where(
                        EventRow.job_id == row.job_id, EventRow.type == EventType.PREVIEW
                    )
                )
            session.delete(row)
            return True

    def picture_in_use(self, picture_id: str) -> bool:
        """Whether an unfinished job has this picture for its source or mask."""
        refers = JobRow.request.contains(f'"image:{picture_id}"', autoescape=True)
        unfinished = select(JobRow.id).where(JobRow.status.in_(UNFINISHED), refers)
        with self._database.read() as session:
            return session.scalar(unfinished.limit(1)) is not None

    # --- events ----------------------------------------------------------------------------

    def events_after(
        self, event_id: int, job_id: str | None = None, limit: int = 500
    ) -> list[Event]:
        """Events with greater ids, oldest first; of one job, or of all."""
        query = select(EventRow).where(EventRow.id > event_id).order_by(EventRow.id).limit(limit)
        if job_id is not None:
            query = query.where(EventRow.job_id == job_id)
        with self._database.read() as session:
            return [event_of(row) for row in session.scalars(query)]

    def previews(self, job_id: str, limit: int) -> list[Preview]:
        """The previews of a job's last run, oldest first; at most `limit`, evenly chosen."""
        of_job = EventRow.job_id == job_id
        with self._database.read() as session:
            began = session.scalar(
                select(func.max(EventRow.id)).where(of_job, EventRow.type == EventType.QUEUED)
            )
            ids = session.scalars(
                select(EventRow.id)
                .where(of_job, EventRow.type == EventType.PREVIEW, EventRow.id > began)
                .order_by(EventRow.id)
            ).all()
            chosen = select(EventRow).where(EventRow.id.in_(evenly(ids, limit)))
            return [preview_of(row) for row in session.scalars(chosen.order_by(EventRow.id))]

    def last_preview(self, job_id: str) -> Preview | None:
        """What a job's first picture looks like now, or looked like last."""
        newest = (
            select(EventRow)
            .where(EventRow.job_id == job_id, EventRow.type == EventType.PREVIEW)
            .order_by(EventRow.id.desc())
            .limit(1)
        )
        with self._database.read() as session:
            row = session.scalar(newest)
            return None if row is None else preview_of(row)

    def last_event_id(self) -> int:
        """The id of the newest event; 0 if there is none."""
        with self._database.read() as session:
            return session.scalar(select(func.max(EventRow.id))) or 0


def _of(client: str | None) -> ColumnElement[bool]:
    """Whether a job is this client's; None is everybody."""
    return true() if client is None else JobRow.client == client


def _of_key(session: Session, client: str, key: str) -> JobRow | None:
    """The job that this key of a client's belongs to."""
    return session.scalar(
        select(JobRow).where(JobRow.client == client, JobRow.idempotency_key == key)
    )


def _earlier(session: Session, new: NewJob) -> str | None:
    """The id of a job that is there already and answers for a new one.

    Raises:
        IdempotencyConflictError: the key belongs to a different request.
    """
    if new.idempotency_key is not None:
        repeated = _of_key(session, new.client, new.idempotency_key)
        if repeated is not None:
            if repeated.fingerprint not in (new.fingerprint, new.old_fingerprint):
                raise IdempotencyConflictError(new.idempotency_key)
            return repeated.id
    if not new.collapses:
        return None
    return session.scalar(
        select(JobRow.id)
        .where(
            JobRow.client == new.client,
            JobRow.fingerprint == new.fingerprint,
            JobRow.status.in_(UNFINISHED),
            JobRow.cancel_requested.is_(False),
        )
        .order_by(JobRow.sequence)
        .limit(1)
    )


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
