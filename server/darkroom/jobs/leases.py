"""What a worker does with the queue: claim, report, finish, recover.

Every change is one transaction, and is refused once the worker has lost its lease.
"""

import time
from collections.abc import Callable, Sequence

from sqlalchemy import Select, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from darkroom.jobs.database import Database
from darkroom.jobs.eta import Kind, Speed
from darkroom.jobs.records import Claim, NewEvent, image_of, request_of
from darkroom.jobs.tables import ImageRow, JobRow, SpeedRow, WorkerRow
from darkroom.jobs.transitions import end, enqueue, log, note
from darkroom.schemas import EventType, JobStatus, Problem


class LeaseLostError(Exception):
    """Someone else has the job by now; what this worker made of it does not count."""


class Leases:
    """The jobs that one worker holds. Its heartbeat may come from another thread.

    Args:
        database: migrated.
        worker: this worker's id; no two live workers share one.
        lease_s: how long a claim holds without a heartbeat.
        max_attempts: a job interrupted that often fails.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        worker: str,
        *,
        lease_s: float,
        max_attempts: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self.worker = worker
        self.lease_s = lease_s
        self._max_attempts = max_attempts
        self._clock = clock

    # --- taking and giving back ------------------------------------------------------------

    def claim(self, *, busy: bool) -> Claim | None:
        """Take the oldest queued job.

        A job that was interrupted before is given to an idle worker only, so that a job that
        kills workers does not take its neighbours with it again.

        Args:
            busy: whether the worker has other jobs in flight.
        """
        oldest = (
            select(JobRow)
            .where(JobRow.status == JobStatus.QUEUED)
            .order_by(JobRow.sequence)
            .limit(1)
        )
        with self._database.read() as session:  # to look must not take the write lock
            if session.scalar(oldest) is None:
                return None
        with self._database.write() as session:
            row = session.scalar(oldest)
            if row is None or (row.attempts > 0 and busy):
                return None
            now = self._clock()
            row.status = JobStatus.RUNNING
            row.worker = self.worker
            row.lease_until = now + self.lease_s
            row.attempts += 1
            row.started_at = row.started_at or now
            return Claim(row.id, row.client, request_of(row), row.attempts, row.request_id)

    def heartbeat(self, *, ready: bool, device: str, max_in_flight: int, metrics: str = "") -> None:
        """Say that the worker is alive, and extend its leases.

        Args:
            ready: whether its model is loaded.
            device: what it runs on, for people.
            max_in_flight: jobs that it works on together.
            metrics: what it measured of itself, in Prometheus' text format.
        """
        lease_until = self._clock() + self.lease_s
        values = {
            "ready": ready,
            "device": device,
            "max_in_flight": max_in_flight,
            "lease_until": lease_until,
            "metrics": metrics,
        }
        with self._database.write(durable=False) as session:
            session.execute(
                insert(WorkerRow)
                .values(id=self.worker, **values)
                .on_conflict_do_update(index_elements=["id"], set_=values)
            )
            session.execute(
                update(JobRow)
                .where(JobRow.worker == self.worker, JobRow.status == JobStatus.RUNNING)
                .values(lease_until=lease_until)
            )

    def give_back(self) -> int:
        """Return the jobs of this stopping worker to the queue; the attempt does not count.

        Returns:
            How many there were.
        """
        with self._database.write() as session:
            present = session.get(WorkerRow, self.worker)
            if present is not None:
                session.delete(present)
            rows = session.scalars(select(JobRow).where(JobRow.worker == self.worker)).all()
            for row in rows:
                row.attempts -= 1
                enqueue(session, row, self._clock())
            return len(rows)

    def recover_own(self) -> int:
        """Put back what an earlier process with this worker's id left behind, dead for sure.

        Returns:
            How many jobs were interrupted.
        """
        return self._recover(select(JobRow).where(JobRow.worker == self.worker))

    def recover_lapsed(self) -> int:
        """Put back the jobs of any worker whose lease has lapsed; how many there were."""
        return self._recover(select(JobRow).where(JobRow.lease_until < self._clock()))

    def _recover(self, interrupted: Select[JobRow]) -> int:
        query = interrupted.where(JobRow.status == JobStatus.RUNNING)
        with self._database.read() as session:
            if session.scalar(query.limit(1)) is None:
                return 0
        now = self._clock()
        with self._database.write() as session:
            rows = session.scalars(query).all()
            for row in rows:
                if row.cancel_requested:
                    end(session, row, now, JobStatus.CANCELLED)
                elif row.attempts >= self._max_attempts:
                    end(session, row, now, JobStatus.FAILED, _interrupted(row.attempts))
                else:
                    enqueue(session, row, now)
            return len(rows)

    # --- reporting -------------------------------------------------------------------------

    def cancel_requests(self) -> list[str]:
        """Running jobs of this worker that somebody wants stopped."""
        with self._database.read() as session:
            return list(
                session.scalars(
                    select(JobRow.id).where(JobRow.worker == self.worker, JobRow.cancel_requested)
                )
            )

    def record(self, events: Sequence[NewEvent], steps: dict[str, tuple[int, int]]) -> None:
        """Append progress of running jobs. Not worth a sync: it can be lost, not corrupted.

        Args:
            events: in order; those of jobs that are not this worker's any more are passed over.
            steps: by job, steps done and steps in all.
        """
        jobs = {event.job_id for event in events} | steps.keys()
        with self._database.write(durable=False) as session:
            rows = session.scalars(
                select(JobRow).where(
                    JobRow.id.in_(jobs),
                    JobRow.worker == self.worker,
                    JobRow.status == JobStatus.RUNNING,
                )
            )
            held = {row.id: row for row in rows}
            log(session, self._clock(), *(event for event in events if event.job_id in held))
            for job_id in steps.keys() & held.keys():
                held[job_id].step, held[job_id].steps = steps[job_id]

    def add_note(self, job_id: str, text: str) -> None:
        """Record something to know about a job. The same again, in a second run too, adds nothing.

        Raises:
            LeaseLostError: the job is not this worker's any more.
        """
        with self._database.write(durable=False) as session:
            note(session, self._held(session, job_id), self._clock(), text)

    def add_image(self, image: ImageRow) -> None:
        """Record a picture whose bytes are on disk. A second run of a job adds none.

        Raises:
            LeaseLostError: the job is not this worker's any more.
        """
        with self._database.write() as session:
            self._held(session, image.job_id)
            if session.get(ImageRow, image.id) is None:
                image.created_at = self._clock()
                session.add(image)
                session.flush()
                data = image_of(image).model_dump(mode="json")
                event = NewEvent(image.job_id, EventType.IMAGE, {"image": data})
                log(session, self._clock(), event)

    def finish(self, job_id: str, status: JobStatus, problem: Problem | None = None) -> None:
        """Bring a running job to its end. On disk when this returns.

        Raises:
            LeaseLostError: the job is not this worker's any more.
        """
        with self._database.write() as session:
            row = self._held(session, job_id)
            if status is JobStatus.SUCCEEDED:
                row.step = row.steps
            end(session, row, self._clock(), status, problem)

    def _held(self, session: Session, job_id: str) -> JobRow:
        row = session.scalar(select(JobRow).where(JobRow.id == job_id))
        if row is None or row.worker != self.worker or row.status != JobStatus.RUNNING:
            raise LeaseLostError(job_id)
        return row

    def learn_speed(self, kind: Kind, speed: Speed) -> None:
        """Take a measurement into the estimates."""
        with self._database.write(durable=False) as session:
            row = session.get(SpeedRow, (kind.model, kind.pixels, kind.in_flight))
            if row is None:
                session.add(SpeedRow(**vars(kind), **vars(speed)))
            else:
                blended = Speed(row.step_seconds, row.other_seconds).blended(speed)
                row.step_seconds, row.other_seconds = blended.step_seconds, blended.other_seconds


def _interrupted(attempts: int) -> Problem:
    return Problem(
        type="urn:darkroom:problem:interrupted",
        title="The job was interrupted too often",
        status=500,
        detail=f"The worker stopped {attempts} times while it worked on this job.",
    )
