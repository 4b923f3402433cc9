"""Changes of a job's state, each with its event. The caller commits the session."""

import json
from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from darkroom.queue.snapshot import UNFINISHED, estimates
from darkroom.responses import EventType, Job, JobStatus, Problem, WebhookState
from darkroom.storage.records import Estimate, NewEvent, job_of
from darkroom.storage.tables import EventRow, ImageRow, JobRow, WebhookRow


def log(session: Session, now: float, *events: NewEvent) -> None:
    """Append to the event log."""
    session.add_all(
        EventRow(job_id=event.job_id, type=event.type, data=json.dumps(event.data), created_at=now)
        for event in events
    )


def enqueue(session: Session, row: JobRow, now: float, estimate: Estimate) -> None:
    """Append the event that a job is queued, with its position and ETA."""
    data: dict[str, object] = {"position": estimate.position, "eta_seconds": estimate.rounded_eta}
    log(session, now, NewEvent(row.id, EventType.QUEUED, data))


def requeue(session: Session, rows: Sequence[JobRow], now: float, per_client: int | None) -> None:
    """Put interrupted jobs back in the queue.

    Args:
        session: to write in.
        rows: of running jobs.
        now: seconds since the epoch.
        per_client: as in `snapshot.read`.
    """
    for row in rows:
        row.status = JobStatus.QUEUED
        row.worker = row.lease_until = None
        row.step = 0
    session.flush()
    found = estimates(session, now, per_client, {row.sequence for row in rows}) if rows else {}
    for row in rows:
        enqueue(session, row, now, found[row.sequence])


def end(
    session: Session, row: JobRow, now: float, status: JobStatus, problem: Problem | None = None
) -> None:
    """End a job for good, and make its webhook due.

    Args:
        session: to write in.
        row: of an unfinished job.
        now: seconds since the epoch.
        status: succeeded, failed or cancelled.
        problem: why it failed.
    """
    row.status = status
    row.worker = row.lease_until = None
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


def note(session: Session, row: JobRow, now: float, text: str) -> None:
    """Add a warning to a job, unless it has the same one."""
    notes: list[str] = json.loads(row.notes)
    if text in notes:
        return
    row.notes = json.dumps([*notes, text], ensure_ascii=False)
    log(session, now, NewEvent(row.id, EventType.NOTE, {"note": text}))


def view(session: Session, row: JobRow, now: float, per_client: int | None) -> Job:
    """The wire form of a job; see `views`."""
    return views(session, [row], now, per_client)[0]


def views(
    session: Session, rows: Sequence[JobRow], now: float, per_client: int | None
) -> list[Job]:
    """The wire form of jobs, with images, estimates and webhooks, in the order of the rows."""
    images: dict[str, list[ImageRow]] = {row.id: [] for row in rows}
    for image in session.scalars(select(ImageRow).where(ImageRow.job_id.in_(images))):
        images[image.job_id].append(image)
    wanted = {row.sequence for row in rows if row.status in UNFINISHED}
    found = estimates(session, now, per_client, wanted) if wanted else {}
    webhooks = {
        webhook.job_id: webhook
        for webhook in session.scalars(select(WebhookRow).where(WebhookRow.job_id.in_(images)))
    }
    return [
        job_of(row, images[row.id], found.get(row.sequence, Estimate()), webhooks.get(row.id))
        for row in rows
    ]
