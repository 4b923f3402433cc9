"""What may happen to a job's row, each with its line in the event log. One session, no commits."""

import json
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from darkroom.jobs.eta import Estimator, Speed
from darkroom.jobs.records import NewEvent, job_of
from darkroom.jobs.tables import EventRow, ImageRow, JobRow, SpeedRow
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
    job = view(session, row)
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


def view(session: Session, row: JobRow) -> Job:
    """A job as the rest of the house sees it."""
    images = session.scalars(select(ImageRow).where(ImageRow.job_id == row.id)).all()
    ahead: Sequence[JobRow] = ()
    if row.status == JobStatus.QUEUED:
        ahead = session.scalars(
            select(JobRow)
            .where(JobRow.status.in_(UNFINISHED), JobRow.sequence < row.sequence)
            .order_by(JobRow.sequence)
        ).all()
    speeds = {
        (speed.model, speed.pixels): Speed(speed.step_seconds, speed.other_seconds)
        for speed in session.scalars(select(SpeedRow))
    }
    return job_of(row, images, ahead, Estimator(speeds))
