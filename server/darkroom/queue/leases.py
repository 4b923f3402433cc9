"""The worker's side of the queue: claim, report, finish and recover jobs.

Every change is one transaction, which checks that the worker still holds the job's lease.
"""

import time
from collections.abc import Callable, Sequence

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from darkroom.errors import DarkroomError
from darkroom.queue import recovery, snapshot
from darkroom.queue.estimate import Kind, Speed
from darkroom.queue.fairness import Rotation, Waiting
from darkroom.queue.recovery import Heartbeat
from darkroom.queue.transitions import end, log, note, requeue
from darkroom.responses import EventType, JobStatus, Problem
from darkroom.storage.database import Database
from darkroom.storage.records import Claim, NewEvent, image_of, request_of, workload_of
from darkroom.storage.tables import ImageRow, JobRow, SpeedRow, WorkerRow


class LeaseLostError(DarkroomError):
    """The worker no longer holds the job's lease, so its result is not recorded."""


class Leases:
    """The jobs leased to one worker. `heartbeat` may be called from another thread.

    Every method raises DatabaseUnavailableError while the database cannot be used; nothing was
    written then.

    Args:
        database: migrated.
        worker: this worker's id, unique among live workers.
        lease_s: how long a lease is valid after a heartbeat.
        max_attempts: a job fails after so many interrupted attempts.
        max_in_flight_per_client: the most jobs of one client at a time; None is all.
        clock: seconds since the epoch.
        monotonic: seconds on a clock that cannot be set.
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
        self._first_seen: dict[Heartbeat, float] = {}  # of other workers, monotonic

    # --- claim and recover ------------------------------------------------------------

    def claim(self, *, busy: bool) -> Claim | None:
        """Fetch the next queued job and take a lease on it.

        A job that was in flight when a worker died is isolated: only an idle worker gets it, and
        no other job is fetched before it. If it crashes the worker again, no other job is hit.

        Args:
            busy: whether the worker has other jobs in flight.

        Returns:
            The job, or None if there is none that this worker may run now.
        """
        while True:
            with self._database.read() as session:  # without the write lock
                sequence = self._next(session, busy)
            if sequence is None:
                return None
            with self._database.write() as session:
                row = session.get(JobRow, sequence)
                if row is None or row.status != JobStatus.QUEUED:
                    continue  # it was cancelled, or another worker fetched it
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
        """The number of the job that this worker runs next."""
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
            .where(JobRow.status == JobStatus.QUEUED, snapshot.has_client(client))
            .order_by(JobRow.urgency, JobRow.sequence)
            .limit(1)
        ).one()
        return None if isolated and busy else sequence

    @property
    def _runs_here(self) -> ColumnElement[bool]:
        return (JobRow.worker == self.worker) & (JobRow.status == JobStatus.RUNNING)

    def heartbeat(self, *, ready: bool, device: str, max_in_flight: int, metrics: str = "") -> None:
        """Record that the worker is alive, and extend its leases.

        Args:
            ready: whether its model is loaded.
            device: a description of what it runs on.
            max_in_flight: the most jobs that it runs together.
            metrics: its metrics in Prometheus' text format.
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
        """Put the jobs of this worker back in the queue when it stops. Counts no attempt.

        Returns:
            The number of jobs put back.
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
        """Put back the jobs of an earlier process with this worker's id, which is dead by now.

        Returns:
            The number of interrupted jobs.
        """
        return self._recover(self.worker, None)

    def recover_lapsed(self) -> int:
        """Put back the jobs of stalled workers: those without a heartbeat for `lease_s`.

        The time is counted on this worker's monotonic clock from when it first saw the last
        heartbeat, so that setting the system clock neither takes jobs from a live worker nor
        leaves those of a dead one. This worker's own jobs are left alone.

        Returns:
            The number of interrupted jobs.
        """
        with self._database.read() as session:
            heartbeats = recovery.heartbeats(session)
        now = self._monotonic()
        first_seen = {
            heartbeat: self._first_seen.get(heartbeat, now)
            for heartbeat in heartbeats
            if heartbeat.worker != self.worker
        }
        self._first_seen = first_seen
        stalled = [last for last, at in first_seen.items() if now - at > self.lease_s]
        return sum(self._recover(last.worker, last) for last in stalled)

    def _recover(self, worker: str, last: Heartbeat | None) -> int:
        return recovery.recover(
            self._database,
            worker,
            last,
            now=self._clock(),
            max_attempts=self._max_attempts,
            per_client=self._per_client,
        )

    # --- reporting -------------------------------------------------------------------------

    def cancel_requests(self) -> list[str]:
        """The ids of this worker's running jobs that are to be cancelled."""
        with self._database.read() as session:
            return list(
                session.scalars(
                    select(JobRow.id).where(JobRow.worker == self.worker, JobRow.cancel_requested)
                )
            )

    def record(self, events: Sequence[NewEvent], steps: dict[str, tuple[int, int]]) -> None:
        """Append progress of running jobs, without a sync: a power cut may lose it.

        Jobs that this worker no longer holds are skipped.

        Args:
            events: in order.
            steps: by job, the steps done and the total.
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
        """Add a warning to a job. The same text is added once, also over several attempts.

        Raises:
            LeaseLostError: this worker no longer holds the job.
        """
        with self._database.write(durable=False) as session:
            note(session, self._held(session, job_id), self._clock(), text)

    def add_image(self, image: ImageRow) -> None:
        """Record an image whose file is on disk. A second attempt adds no second record.

        Raises:
            LeaseLostError: this worker no longer holds the job.
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
        """End a running job. It is on disk when this returns.

        Args:
            job_id: of a job of this worker.
            status: succeeded, failed or cancelled.
            problem: why it failed.

        Raises:
            LeaseLostError: this worker no longer holds the job.
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
        """Add a measured speed to the moving average that estimates use."""
        with self._database.write(durable=False) as session:
            row = session.get(SpeedRow, (kind.model, kind.pixels, kind.in_flight))
            if row is None:
                session.add(SpeedRow(**vars(kind), **vars(speed)))
            else:
                blended = Speed(row.step_seconds, row.other_seconds).blended(speed)
                row.step_seconds, row.other_seconds = blended.step_seconds, blended.other_seconds
