"""What may happen to a job's row, each with its line in the event log. One session, no commits."""

import json
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from darkroom.jobs.eta import Estimator, Kind, Speed
from darkroom.jobs.records import NewEvent, Outlook, job_of, work_of
from darkroom.jobs.tables import EventRow, ImageRow, JobRow, SpeedRow, WorkerRow
from darkroom.schemas import EventType, Job, JobStatus, Problem

UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)


def log(session: Session, now: float, *events: NewEvent) -> None:
    """Append to the event log."""
    session.add_all(
        EventRow(job_id=event.job_id, type=event.type, data=json.dumps(event.data), created_at=now)
        for event in events
    )


def enqueue(session: Session, row: JobRow, now: float) -> None:
    """Put a new or interrupted job in the queue."""
    row.status = JobStatus.QUEUED
    row.worker = row.lease_until = None
    row.step = 0
    session.add(row)
    session.flush()
    job = view(session, row, now)
    data: dict[str, object] = {"position": job.position, "eta_seconds": job.eta_seconds}
    log(session, now, NewEvent(row.id, EventType.QUEUED, data))


def end(
    session: Session, row: JobRow, now: float, status: JobStatus, problem: Problem | None = None
) -> None:
    """Bring a job to one of its ends; there is no way back from there."""
    row.status = status
    row.worker = row.lease_until = None
    row.cancel_requested = False
    row.finished_at = now
    row.error = None if problem is None else problem.model_dump_json()
    data: dict[str, object] = {}
    if problem is not None:
        data["problem"] = problem.model_dump(mode="json")
    log(session, now, NewEvent(row.id, EventType(status.value), data))


def note(session: Session, row: JobRow, now: float, text: str) -> None:
    """Tell the one who asked something about a job, unless it has been told."""
    notes: list[str] = json.loads(row.notes)
    if text in notes:
        return
    row.notes = json.dumps([*notes, text], ensure_ascii=False)
    log(session, now, NewEvent(row.id, EventType.NOTE, {"note": text}))


def view(session: Session, row: JobRow, now: float) -> Job:
    """A job as the rest of the house sees it."""
    return views(session, [row], now)[0]


def views(session: Session, rows: Sequence[JobRow], now: float) -> list[Job]:
    """Jobs as the rest of the house sees them."""
    images: dict[str, list[ImageRow]] = {row.id: [] for row in rows}
    for image in session.scalars(select(ImageRow).where(ImageRow.job_id.in_(images))):
        images[image.job_id].append(image)
    outlooks: dict[str, Outlook] = {}
    if any(row.status in UNFINISHED for row in rows):
        outlooks = _outlooks(session, now)
    return [job_of(row, images[row.id], outlooks.get(row.id, Outlook())) for row in rows]


def _outlooks(session: Session, now: float) -> dict[str, Outlook]:
    """What every unfinished job may expect, by id."""
    rows = session.scalars(
        select(JobRow).where(JobRow.status.in_(UNFINISHED)).order_by(JobRow.sequence)
    ).all()
    running = [row for row in rows if row.status == JobStatus.RUNNING]
    queued = [row for row in rows if row.status == JobStatus.QUEUED]
    speeds = {
        Kind(row.model, row.pixels, row.in_flight): Speed(row.step_seconds, row.other_seconds)
        for row in session.scalars(select(SpeedRow))
    }
    together = session.scalar(
        select(func.sum(WorkerRow.max_in_flight)).where(WorkerRow.lease_until > now)
    )
    estimator = Estimator(speeds, together or 1)
    etas = estimator.seconds([work_of(row) for row in (*running, *queued)])
    positions = (*(None for _ in running), *range(len(queued)))
    return {
        row.id: Outlook(position, eta)
        for row, position, eta in zip((*running, *queued), positions, etas, strict=True)
    }
