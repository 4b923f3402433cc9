"""Changes of a job's state, each with its event: accepted, put back, ended.

The caller commits the session. Times are seconds since the epoch.
"""

import json
import math
from collections.abc import Container, Sequence
from typing import Literal

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from darkroom.config import QueueSettings
from darkroom.errors import DarkroomError
from darkroom.queue.snapshot import UNFINISHED, QueueSnapshot, estimates
from darkroom.responses import EventType, Job, JobStatus, Problem, WebhookState
from darkroom.storage.records import (
    Estimate,
    NewEvent,
    NewJob,
    job_of,
    note_data,
    note_of,
    notes_text,
    source_names,
)
from darkroom.storage.tables import ClientRow, EventRow, ImageRow, JobRow, UploadRow, WebhookRow

UNKNOWN_RETRY_S = 5
MAX_RETRY_S = 600
IDLE_KEPT = 100  # clients without a queued job whose tickets are kept


class IdempotencyConflictError(DarkroomError):
    """The idempotency key belongs to a different request."""


class SourceGoneError(DarkroomError):
    """A picture that a request works from was deleted. `name` is its id."""

    def __init__(self, name: str) -> None:
        super().__init__(f"picture {name!r} was deleted")
        self.name = name


class QueueFullError(DarkroomError):
    """The number of unfinished jobs is at its limit.

    Attributes:
        whose: whether the limit is that of all clients or of one.
        pending: the number of jobs that count.
        retry_after_s: until the first of them is expected to end.
    """

    def __init__(self, whose: Literal["all", "client"], pending: int, retry_after_s: int) -> None:
        super().__init__(f"{pending} jobs are pending")
        self.whose = whose
        self.pending = pending
        self.retry_after_s = retry_after_s


def log(session: Session, now: float, *events: NewEvent) -> None:
    """Append to the event log."""
    if events:
        session.execute(
            insert(EventRow),
            [
                {
                    "job_id": event.job_id,
                    "type": event.type,
                    "data": json.dumps(event.data),
                    "created_at": now,
                }
                for event in events
            ],
        )


# --- accepted ------------------------------------------------------------------------------


def job_of_key(session: Session, client: str, key: str | None) -> JobRow | None:
    """The job with this idempotency key of a client."""
    if key is None:
        return None
    return session.scalar(
        select(JobRow).where(JobRow.client == client, JobRow.idempotency_key == key)
    )


def existing(session: Session, new: NewJob, awaited: Container[str]) -> JobRow | None:
    """A job to use in place of a new one, or None.

    Args:
        awaited: the ids of the jobs that somebody waits for.

    Raises:
        IdempotencyConflictError: the key belongs to a different request.
    """
    repeated = job_of_key(session, new.client, new.idempotency_key)
    if repeated is not None:
        if repeated.fingerprint not in (new.fingerprint, new.old_fingerprint):
            raise IdempotencyConflictError(new.idempotency_key)
        return repeated
    if not new.collapses:
        return None
    equal = session.scalars(
        select(JobRow)
        .where(
            JobRow.client == new.client,
            JobRow.fingerprint == new.fingerprint,
            JobRow.status.in_(UNFINISHED),
            JobRow.cancel_requested.is_(False),
        )
        .order_by(JobRow.sequence)
    ).all()
    alone = [row for row in equal if row.id not in awaited]
    return next(iter(alone or (equal if new.is_retry else ())), None)


def check_room(settings: QueueSettings, queue: QueueSnapshot, client: str) -> None:
    """Check that one more job of a client fits.

    Raises:
        QueueFullError: a limit is reached.
    """
    whose: Literal["all", "client"]
    if queue.pending[client] >= settings.max_pending_per_client:
        whose, pending, end_s = "client", queue.pending[client], queue.first_end(client)
    elif queue.pending.total() >= settings.max_pending:
        whose, pending, end_s = "all", queue.pending.total(), queue.first_end(None)
    else:
        return
    retry_s = UNKNOWN_RETRY_S if end_s is None else math.ceil(end_s)
    raise QueueFullError(whose, pending, min(max(1, retry_s), MAX_RETRY_S))


def check_sources(session: Session, new: NewJob) -> None:
    """Check that the pictures that a job works from are there, in the transaction that adds it.

    Raises:
        SourceGoneError: one was deleted since the request was checked.
    """
    stored = source_names(new.request) - {upload.id for upload in new.uploads}
    for name in sorted(stored):
        if session.get(ImageRow, name) is None and session.get(UploadRow, name) is None:
            raise SourceGoneError(name)


def accept(session: Session, queue: QueueSnapshot, new: NewJob, job_id: str, now: float) -> Job:
    """Add a job with its uploads, webhook, ticket and event.

    Args:
        queue: as read for the job's urgency.

    Returns:
        The job's wire form.
    """
    after, estimate = queue.with_job(new.client, new.workload)
    notes = [note_of(text) for text in new.notes]
    for upload in new.uploads:
        session.add(UploadRow(client=new.client, created_at=now, **vars(upload)))
    row = JobRow(
        id=job_id,
        client=new.client,
        client_name=new.client_name,
        urgency=new.urgency,
        request_id=new.request_id,
        api=new.api,
        task=new.request.task,
        status=JobStatus.QUEUED,
        request=new.request.model_dump_json(exclude_none=True),
        **vars(new.workload),
        loras="\n".join(lora.name for lora in getattr(new.request, "loras", ())),
        fingerprint=new.fingerprint,
        idempotency_key=new.idempotency_key,
        notes=notes_text(notes),
        created_at=now,
        predicted_s=estimate.eta_seconds,
        wanted_until=None if new.wanted_s is None else now + new.wanted_s,
    )
    session.add(row)
    session.flush()
    webhook = None
    if new.webhook is not None:
        webhook = WebhookRow(
            job_id=job_id,
            url=new.webhook.url,
            origin=new.webhook.origin,
            state=WebhookState.WAITING,
        )
        session.add(webhook)
    if new.client not in queue.queues:
        set_ticket(session, new.client, after.tickets[new.client])
        _forget_idle_clients(session, after)
    _log_queued(session, row, now, estimate)
    log(session, now, *(NewEvent(job_id, EventType.NOTE, note_data(note)) for note in notes))
    return job_of(row, (), estimate, webhook)


def set_ticket(session: Session, client: str, ticket: int) -> None:
    """Give a client a ticket in place of the one that it may have."""
    session.merge(ClientRow(client=client, served=ticket))


def _forget_idle_clients(session: Session, queue: QueueSnapshot) -> None:
    """Delete tickets of clients without queued jobs if there are many.

    Such a client gets the same ticket from `fairness.joining` as if it had none.
    """
    idle = [
        client
        for client, ticket in queue.tickets.items()
        if client not in queue.queues and ticket < queue.latest_ticket - 1
    ]
    if len(idle) > IDLE_KEPT:
        session.execute(delete(ClientRow).where(ClientRow.client.in_(idle)))


def _log_queued(session: Session, row: JobRow, now: float, estimate: Estimate) -> None:
    data: dict[str, object] = {"position": estimate.position, "eta_seconds": estimate.rounded_eta}
    log(session, now, NewEvent(row.id, EventType.QUEUED, data))


# --- put back, ended -----------------------------------------------------------------------


def requeue(session: Session, rows: Sequence[JobRow], now: float, per_client: int | None) -> int:
    """Put running jobs back in the queue; end those that are to be cancelled.

    Args:
        per_client: as in `snapshot.read`.

    Returns:
        The number of jobs put back.
    """
    again = []
    for row in rows:
        if row.cancel_requested:
            end(session, row, now, JobStatus.CANCELLED)
            continue
        row.status = JobStatus.QUEUED
        row.lease = row.lease_until = None
        row.step = 0
        again.append(row)
    session.flush()
    found = estimates(session, now, per_client, [row.sequence for row in again])
    for row in again:
        _log_queued(session, row, now, found[row.sequence])
    return len(again)


def cancel(session: Session, row: JobRow, now: float, *, frees_key: bool) -> None:
    """End a queued job, and have a running one end at its next step. A finished one stays.

    Args:
        frees_key: whether the next request with this job's idempotency key makes a new job.
    """
    if frees_key and row.status in UNFINISHED:
        row.idempotency_key = None
    if row.status == JobStatus.QUEUED:
        end(session, row, now, JobStatus.CANCELLED)
    elif row.status == JobStatus.RUNNING:
        row.cancel_requested = True


def end(
    session: Session, row: JobRow, now: float, status: JobStatus, problem: Problem | None = None
) -> None:
    """End an unfinished job for good, and make its webhook due.

    Args:
        problem: why it failed, if it did.
    """
    row.status = status
    row.lease = row.lease_until = None
    row.cancel_requested = False
    row.finished_at = now
    row.error = None if problem is None else problem.model_dump_json()
    data: dict[str, object] = {}
    if problem is not None:
        data["problem"] = problem.model_dump(mode="json")
    log(session, now, NewEvent(row.id, EventType(status.value), data))
    session.execute(
        update(WebhookRow)
        .where(WebhookRow.job_id == row.id, WebhookRow.state == WebhookState.WAITING)
        .values(state=WebhookState.PENDING, due_at=now)
    )
