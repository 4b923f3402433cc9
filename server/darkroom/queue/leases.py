"""What a worker does with the queue: claim, report, finish, recover.

Every change is one transaction, and is refused once the worker has lost its lease.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from darkroom.errors import DarkroomError
from darkroom.queue import snapshot
from darkroom.queue.estimate import Kind, Speed
from darkroom.queue.fairness import Rotation, Waiting
from darkroom.queue.transitions import end, log, note, requeue
from darkroom.responses import EventType, JobStatus, Problem
from darkroom.storage.database import Database
from darkroom.storage.records import Claim, NewEvent, image_of, request_of, workload_of
from darkroom.storage.tables import ImageRow, JobRow, SpeedRow, WorkerRow


class LeaseLostError(DarkroomError):
    """Someone else has the job by now; what this worker made of it does not count."""


@dataclass(frozen=True)
class _SignOfLife:
    """What a living worker changes with every heartbeat."""

    worker: str
    lease_until: float
    jobs: int


class Leases:
    """The jobs that one worker holds. Its heartbeat may come from another thread.

    Args:
        database: migrated.
        worker: this worker's id; no two live workers share one.
        lease_s: how long a claim holds without a heartbeat.
        max_attempts: a job interrupted that often fails.
        max_in_flight_per_client: jobs of one client that this worker takes on; None is all.
        clock: seconds since the epoch.
        monotonic: seconds on a clock that nobody sets.
    """

    def __init__(
        self,
        database: Database,
        worker: str,
        *,
        lease_s: float,
        max_attempts: int,
        max_in_flight_per_client: int | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self.worker = worker
        self.lease_s = lease_s
        self._max_attempts = max_attempts
        self._per_client = max_in_flight_per_client
        self._clock = clock
        self._monotonic = monotonic
        self._first_seen: dict[_SignOfLife, float] = {}  # of other workers, monotonic

    # --- taking and giving back ------------------------------------------------------------

    def claim(self, *, busy: bool) -> Claim | None:
        """Take the queued job whose turn it is.

        A job that was in flight when a worker died is given to an idle worker only, and nobody
        overtakes it meanwhile: if it kills workers, it does not take others' jobs with it again.

        Args:
            busy: whether the worker has other jobs in flight.
        """
        while True:
            with self._database.read() as session:  # to look must not take the write lock
                sequence = self._next(session, busy)
            if sequence is None:
                return None
            with self._database.write() as session:
                row = session.get(JobRow, sequence)
                if row is None or row.status != JobStatus.QUEUED:
                    continue  # it was cancelled, or another worker was quicker
                now = self._clock()
                snapshot.serve(session, row.client)
                row.status = JobStatus.RUNNING
                row.worker = self.worker
                row.lease_until = now + self.lease_s
                row.attempts += 1
                row.started_at = row.started_at or now
                return Claim(
                    row.id,
                    row.client,
                    request_of(row),
                    workload_of(row),
                    row.attempts,
                    row.request_id,
                    row.isolated,
                )

    def _next(self, session: Session, busy: bool) -> int | None:
        """The number of the job that this worker takes next."""
        queued = session.execute(
            select(JobRow.client, func.count(), func.min(JobRow.sequence))
            .where(JobRow.status == JobStatus.QUEUED)
            .group_by(JobRow.client)
        ).all()
        if not queued:
            return None
        mine = session.scalars(select(JobRow.client).where(self._runs_here)).all()
        client = Rotation(
            {client: Waiting(jobs, oldest) for client, jobs, oldest in queued},
            snapshot.read_tickets(session),
            mine,
            self._per_client or len(mine) + 1,
        ).next()
        if client is None:
            return None
        sequence, isolated = session.execute(
            select(JobRow.sequence, JobRow.isolated)
            .where(JobRow.status == JobStatus.QUEUED, snapshot.of_client(client))
            .order_by(JobRow.urgency, JobRow.sequence)
            .limit(1)
        ).one()
        return None if isolated and busy else sequence

    @property
    def _runs_here(self) -> ColumnElement[bool]:
        return (JobRow.worker == self.worker) & (JobRow.status == JobStatus.RUNNING)

    def heartbeat(self, *, ready: bool, device: str, max_in_flight: int, metrics: str = "") -> None:
        """Say that the worker is alive, and extend its leases.

        Args:
            ready: whether its model is loaded.
            device: what it runs on, for people.
            max_in_flight: jobs that it works on together.
            metrics: what it measured of itself, in Prometheus' text format.
        """
        lease_until = self._clock() + self.lease_s
        with self._database.write(durable=False) as session:
            session.merge(
                WorkerRow(
                    id=self.worker,
                    ready=ready,
                    device=device,
                    max_in_flight=max_in_flight,
                    lease_until=lease_until,
                    metrics=metrics,
                )
            )
            session.execute(update(JobRow).where(self._runs_here).values(lease_until=lease_until))

    def give_back(self) -> int:
        """Return the jobs of this stopping worker to the queue; the attempt does not count.

        Returns:
            How many there were.
        """
        with self._database.write() as session:
            present = session.get(WorkerRow, self.worker)
            if present is not None:
                session.delete(present)
            rows = session.scalars(select(JobRow).where(self._runs_here)).all()
            again = []
            for row in rows:
                row.attempts -= 1
                if row.cancel_requested:
                    end(session, row, self._clock(), JobStatus.CANCELLED)
                else:
                    again.append(row)
            requeue(session, again, self._clock(), self._per_client)
            return len(again)

    def recover_own(self) -> int:
        """Put back what an earlier process with this worker's id left behind, dead for sure.

        Returns:
            How many jobs were interrupted.
        """
        return self._recover(self.worker)

    def recover_lapsed(self) -> int:
        """Put back the jobs of other workers who gave no sign of life for the time of a lease.

        The time passes on this worker's own clock from when it first saw the last sign, so that a
        clock that is set, forward or back, takes nobody's jobs and leaves nobody's behind. Its own
        jobs are not judged: it is alive, or it would not ask.

        Returns:
            How many jobs were interrupted.
        """
        with self._database.read() as session:
            signs = _signs_of_life(session)
        now = self._monotonic()
        first_seen = {
            sign: self._first_seen.get(sign, now) for sign in signs if sign.worker != self.worker
        }
        self._first_seen = first_seen
        silent = [sign for sign, at in first_seen.items() if now - at > self.lease_s]
        return sum(self._recover(sign.worker, sign) for sign in silent)

    def _recover(self, worker: str, last: "_SignOfLife | None" = None) -> int:
        """Put back the jobs of a worker that is dead.

        Whatever was in flight together may have been the reason, so each is tried again isolated.
        Only one that was alone is to blame, and has used up an attempt.

        Args:
            worker: its id.
            last: nothing is done if there was another sign of life by now.
        """
        query = select(JobRow).where(JobRow.worker == worker, JobRow.status == JobStatus.RUNNING)
        with self._database.read() as session:
            if session.scalar(query.limit(1)) is None:
                return 0
        now = self._clock()
        with self._database.write() as session:
            if last is not None and last not in _signs_of_life(session):
                return 0
            rows = session.scalars(query.order_by(JobRow.sequence)).all()
            again = []
            for row in rows:
                row.isolated = True
                if len(rows) > 1:
                    row.attempts -= 1
                if row.cancel_requested:
                    end(session, row, now, JobStatus.CANCELLED)
                elif row.attempts >= self._max_attempts:
                    end(session, row, now, JobStatus.FAILED, _interrupted(row.attempts))
                else:
                    again.append(row)
            requeue(session, again, now, self._per_client)
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


def _signs_of_life(session: Session) -> set[_SignOfLife]:
    """The last one of each worker that has jobs in flight."""
    rows = session.execute(
        select(JobRow.worker, func.max(JobRow.lease_until), func.count())
        .where(JobRow.status == JobStatus.RUNNING)
        .group_by(JobRow.worker)
    )
    return {
        _SignOfLife(worker, lease_until, jobs)
        for worker, lease_until, jobs in rows
        if worker is not None and lease_until is not None
    }


def _interrupted(attempts: int) -> Problem:
    return Problem(
        type="urn:darkroom:problem:interrupted",
        title="The job was interrupted too often",
        status=500,
        detail=f"The worker stopped {attempts} times while it worked on this job.",
    )
