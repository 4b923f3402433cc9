"""Decides whether a new job may be queued, and queues it. The caller commits the session."""

import math
from collections import Counter
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from darkroom.config import QueueSettings
from darkroom.errors import DarkroomError
from darkroom.queue import snapshot
from darkroom.queue.snapshot import UNFINISHED, QueueSnapshot
from darkroom.queue.transitions import enqueue
from darkroom.responses import Job, JobStatus, WebhookState
from darkroom.storage.records import NewJob, job_of
from darkroom.storage.tables import JobRow, UploadRow, WebhookRow

UNKNOWN_RETRY_S = 5
MAX_RETRY_S = 600


class IdempotencyConflictError(DarkroomError):
    """The idempotency key belongs to a different request."""


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


def of_key(session: Session, client: str, key: str) -> JobRow | None:
    """The job with this idempotency key of a client."""
    return session.scalar(
        select(JobRow).where(JobRow.client == client, JobRow.idempotency_key == key)
    )


def earlier(session: Session, new: NewJob) -> JobRow | None:
    """An existing job to use in place of a new one, or None.

    Raises:
        IdempotencyConflictError: the key belongs to a different request.
    """
    if new.idempotency_key is not None:
        repeated = of_key(session, new.client, new.idempotency_key)
        if repeated is not None:
            if repeated.fingerprint not in (new.fingerprint, new.old_fingerprint):
                raise IdempotencyConflictError(new.idempotency_key)
            return repeated
    if not new.collapses:
        return None
    return session.scalar(
        select(JobRow)
        .where(
            JobRow.client == new.client,
            JobRow.fingerprint == new.fingerprint,
            JobRow.status.in_(UNFINISHED),
            JobRow.cancel_requested.is_(False),
        )
        .order_by(JobRow.sequence)
        .limit(1)
    )


def check_room(
    session: Session, settings: QueueSettings, now: float, client: str, pending: Counter[str]
) -> None:
    """Check that one more job of a client fits.

    Args:
        session: to read in.
        settings: the limits.
        now: seconds since the epoch.
        client: as in `JobRow.client`.
        pending: the number of unfinished jobs by client.

    Raises:
        QueueFullError: a limit is reached.
    """
    whose: Literal["all", "client"]
    if pending[client] >= settings.max_pending_per_client:
        whose, count = "client", pending[client]
    elif pending.total() >= settings.max_pending:
        whose, count = "all", pending.total()
    else:
        return
    queue = snapshot.read(session, now, settings.max_in_flight_per_client)
    end_s = queue.first_end(client if whose == "client" else None)
    retry_s = UNKNOWN_RETRY_S if end_s is None else math.ceil(end_s)
    raise QueueFullError(whose, count, min(max(1, retry_s), MAX_RETRY_S))


def insert(session: Session, queue: QueueSnapshot, new: NewJob, job_id: str, now: float) -> Job:
    """Add a job with its uploads, webhook, ticket and event. Returns its wire form."""
    estimate = snapshot.newcomer(session, queue, new.client, new.urgency, new.workload)
    for upload in new.uploads:
        session.add(UploadRow(client=new.client, created_at=now, **vars(upload)))
    row = JobRow(
        id=job_id,
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
    webhook = None
    if new.webhook is not None:
        webhook = WebhookRow(
            job_id=job_id,
            url=new.webhook.url,
            origin=new.webhook.origin,
            state=WebhookState.WAITING,
        )
        session.add(webhook)
    snapshot.join(session, queue, new.client)
    enqueue(session, row, now, estimate)
    session.flush()
    return job_of(row, (), estimate, webhook)
