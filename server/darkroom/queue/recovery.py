"""Puts the jobs of dead workers back in the queue."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from darkroom.queue.transitions import end, requeue
from darkroom.responses import JobStatus, Problem
from darkroom.storage.database import Database
from darkroom.storage.tables import JobRow


@dataclass(frozen=True)
class Heartbeat:
    """The trace of a worker's last heartbeat in its jobs; the next one changes it."""

    worker: str
    lease_until: float
    jobs: int


def heartbeats(session: Session) -> set[Heartbeat]:
    """The last heartbeat of each worker with jobs in flight."""
    rows = session.execute(
        select(JobRow.worker, func.max(JobRow.lease_until), func.count())
        .where(JobRow.status == JobStatus.RUNNING)
        .group_by(JobRow.worker)
    )
    return {
        Heartbeat(worker, lease_until, jobs)
        for worker, lease_until, jobs in rows
        if worker is not None and lease_until is not None
    }


def recover(
    database: Database,
    worker: str,
    last: Heartbeat | None,
    *,
    now: float,
    max_attempts: int,
    per_client: int | None,
) -> int:
    """Put back the jobs of a dead worker.

    Any of the jobs in flight may have crashed it, so each runs isolated from now on. The attempt
    counts only against a job that was alone.

    Args:
        database: migrated.
        worker: its id.
        last: its last known heartbeat; nothing is done if there was another one since.
        now: seconds since the epoch.
        max_attempts: a job fails after so many interrupted attempts.
        per_client: as in `snapshot.read`.

    Returns:
        The number of jobs it had.
    """
    query = select(JobRow).where(JobRow.worker == worker, JobRow.status == JobStatus.RUNNING)
    with database.read() as session:
        if session.scalar(query.limit(1)) is None:
            return 0
    with database.write() as session:
        if last is not None and last not in heartbeats(session):
            return 0
        rows = session.scalars(query.order_by(JobRow.sequence)).all()
        again = []
        for row in rows:
            row.isolated = True
            if len(rows) > 1:
                row.attempts -= 1
            if row.cancel_requested:
                end(session, row, now, JobStatus.CANCELLED)
            elif row.attempts >= max_attempts:
                end(session, row, now, JobStatus.FAILED, _interrupted(row.attempts))
            else:
                again.append(row)
        requeue(session, again, now, per_client)
        return len(rows)


def _interrupted(attempts: int) -> Problem:
    return Problem(
        type="urn:darkroom:problem:interrupted",
        title="The job was interrupted too often",
        status=500,
        detail=f"The worker stopped {attempts} times while it worked on this job.",
    )
