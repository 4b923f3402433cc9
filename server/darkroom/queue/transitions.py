"""What may happen to a job's row, each with its line in the event log. One session, no commits."""

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
    """Tell that a job is in the queue, and what it may expect there."""
    data: dict[str, object] = {"position": estimate.position, "eta_seconds": estimate.rounded_eta}
    log(session, now, NewEvent(row.id, EventType.QUEUED, data))


def requeue(session: Session, rows: Sequence[JobRow], now: float, per_client: int | None) -> None:
    """Put interrupted jobs back in the queue.

    Args:
        session: to write in.
        rows: of running jobs.
        now: seconds since the epoch.
        per_client: as in `estimate.read`.
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
    """Bring a job to one of its ends; there is no way back from there.

    Who is to be told of it is told from now on.
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
    """Tell the one who asked something about a job, unless it has been told."""
    notes: list[str] = json.loads(row.notes)
    if text in notes:
        return
    row.notes = json.dumps([*notes, text], ensure_ascii=False)
    log(session, now, NewEvent(row.id, EventType.NOTE, {"note": text}))


def view(session: Session, row: JobRow, now: float, per_client: int | None) -> Job:
    """A job as the rest of the house sees it."""
    return views(session, [row], now, per_client)[0]


def views(
    session: Session, rows: Sequence[JobRow], now: float, per_client: int | None
) -> list[Job]:
    """Jobs as the rest of the house sees them."""
    images: dict[str, list[ImageRow]] = {row.id: [] for row in rows}
    for image in session.scalars(select(ImageRow).where(ImageRow.job_id.in_(images))):
        images[image.job_id].append(image)
    wanted = {row.sequence for row in rows if row.status in UNFINISHED}
    found = estimates(session, now, per_client, wanted) if wanted else {}
    told = {
        webhook.job_id: webhook
        for webhook in session.scalars(select(WebhookRow).where(WebhookRow.job_id.in_(images)))
    }
    return [
        job_of(row, images[row.id], found.get(row.sequence, Estimate()), told.get(row.id))
        for row in rows
    ]
