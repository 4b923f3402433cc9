"""What web does with the queue: accept, show, cancel. Every change is one transaction."""

import secrets
import time
from collections.abc import Callable

from sqlalchemy import ColumnElement, delete, func, select, true
from sqlalchemy.orm import Session

from darkroom.jobs.database import Database
from darkroom.jobs.eta import expected_steps
from darkroom.jobs.records import (
    NewJob,
    Outlook,
    Preview,
    StoredPicture,
    event_of,
    preview_of,
    request_of,
)
from darkroom.jobs.tables import EventRow, ImageRow, JobRow, UploadRow, WorkerRow
from darkroom.jobs.transitions import UNFINISHED, end, enqueue, view, views
from darkroom.schemas import Event, EventType, Job, JobStatus
from darkroom.timeline import evenly


class IdempotencyConflictError(Exception):
    """The key was used before, for something else."""


class Store:
    """Jobs, pictures' records and events, for any number of threads.

    Where a method takes a `client`, it finds only what is that client's; None finds everybody's.

    Args:
        database: migrated.
        clock: seconds since the epoch.
        new_id: makes unguessable ids.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: secrets.token_hex(12),
    ) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id

    def accept(self, new: NewJob) -> tuple[str, bool]:
        """Put a job in the queue. It is on disk when this returns.

        Returns:
            The job's id, and whether it is new rather than an earlier one with the same key.

        Raises:
            IdempotencyConflictError: the key belongs to a different request.
        """
        with self._database.write() as session:
            if new.idempotency_key is not None:
                earlier = session.scalar(
                    select(JobRow).where(
                        JobRow.client == new.client,
                        JobRow.idempotency_key == new.idempotency_key,
                    )
                )
                if earlier is not None:
                    if earlier.fingerprint != new.fingerprint:
                        raise IdempotencyConflictError(new.idempotency_key)
                    return earlier.id, False
            now = self._clock()
            for upload in new.uploads:
                session.add(UploadRow(client=new.client, created_at=now, **vars(upload)))
            row = JobRow(
                id=self._new_id(),
                client=new.client,
                client_name=new.client_name,
                urgency=new.urgency,
                request_id=new.request_id,
                task=new.request.task,
                request=new.request.model_dump_json(),
                steps=expected_steps(new.request),
                fingerprint=new.fingerprint,
                idempotency_key=new.idempotency_key,
                created_at=now,
            )
            enqueue(session, row, now)
            return row.id, True

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
            return view(session, row, self._clock())

    # --- jobs ------------------------------------------------------------------------------

    def job(self, job_id: str, client: str | None) -> Job | None:
        """A job."""
        with self._database.read() as session:
            row = _job_row(session, job_id, client)
            return None if row is None else view(session, row, self._clock())

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
            jobs = views(session, rows[:limit], self._clock())
            return jobs, rows[limit - 1].sequence if len(rows) > limit else None

    def counts(self) -> dict[str, int]:
        """Jobs by status."""
        with self._database.read() as session:
            rows = session.execute(select(JobRow.status, func.count()).group_by(JobRow.status))
            return {status: count for status, count in rows}  # noqa: C416

    def owners(self, job_ids: set[str]) -> dict[str, str]:
        """The client of each job."""
        with self._database.read() as session:
            rows = session.execute(select(JobRow.id, JobRow.client).where(JobRow.id.in_(job_ids)))
            return {job_id: client for job_id, client in rows}  # noqa: C416

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

    def outlooks(self, job_ids: set[str]) -> dict[str, Outlook]:
        """What those of the jobs that are queued may expect."""
        queued = (JobRow.id.in_(job_ids), JobRow.status == JobStatus.QUEUED)
        with self._database.read() as session:
            rows = session.scalars(select(JobRow).where(*queued)).all()
            jobs = views(session, rows, self._clock())
        return {job.id: Outlook(job.position, job.eta_seconds) for job in jobs}

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
        reference = f"image:{picture_id}"
        with self._database.read() as session:
            rows = session.scalars(select(JobRow).where(JobRow.status.in_(UNFINISHED)))
            return any(
                reference in (request.image, request.mask_image)
                for request in map(request_of, rows)
            )

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

    def last_event_id(self) -> int:
        """The id of the newest event; 0 if there is none."""
        with self._database.read() as session:
            return session.scalar(select(func.max(EventRow.id))) or 0


def _of(client: str | None) -> ColumnElement[bool]:
    """Whether a job is this client's; None is everybody."""
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
