"""The worker's side of the queue: claim, report, finish and recover jobs.

Every change is one transaction, which checks that the worker still holds the job's lease.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from darkroom.engine.base import EngineMemory
from darkroom.errors import DarkroomError, message
from darkroom.queue import fairness
from darkroom.queue.affinity import Candidate
from darkroom.queue.estimate import Kind, Speed
from darkroom.queue.fairness import ClientQueue
from darkroom.queue.snapshot import TICKETS
from darkroom.queue.transitions import end, log, requeue, set_ticket
from darkroom.responses import EventType, JobStatus, Problem
from darkroom.storage.database import Database
from darkroom.storage.records import (
    Claim,
    NewEvent,
    image_of,
    note_data,
    note_of,
    notes_of,
    notes_text,
    request_of,
    workload_of,
)
from darkroom.storage.tables import (
    ClientRow,
    ExplanationRow,
    ImageRow,
    JobRow,
    SpeedRow,
    WorkerRow,
)

_QUEUES = (
    select(JobRow.client, func.count(), func.min(JobRow.sequence))
    .where(JobRow.status == JobStatus.QUEUED)
    .group_by(JobRow.client)
)


_FIRST_OF_MODEL = (
    select(JobRow.client, JobRow.urgency, JobRow.model, JobRow.isolated, func.min(JobRow.sequence))
    .where(JobRow.status == JobStatus.QUEUED)
    .group_by(JobRow.client, JobRow.urgency, JobRow.model, JobRow.isolated)
)

# The next job and what returns the others that may go before it, to the job to claim.
Pick = Callable[[Candidate, Callable[[], Sequence[Candidate]]], Candidate | None]


class LeaseLostError(DarkroomError):
    """The worker no longer holds the job's lease, so its result is not recorded."""


class _Heartbeat(NamedTuple):
    """The trace of a worker's last heartbeat in its jobs; the next one changes it."""

    worker: str
    lease_until: float
    jobs: int


@dataclass(eq=False)
class Leases:
    """The jobs leased to one worker. `heartbeat` may be called from another thread.

    Every method raises DatabaseUnavailableError while the database cannot be used, and a method
    that changes one job raises LeaseLostError if this worker no longer holds it; nothing was
    written then. `record` skips such jobs.

    Attributes:
        worker: an id, unique among live workers.
        lease_s: how long a lease is valid after a heartbeat.
        max_attempts: a job fails after so many interrupted attempts.
        max_in_flight_per_client: None is all.
        clock: seconds since the epoch.
        monotonic: seconds on a clock that cannot be set.
    """

    database: Database
    worker: str
    _: KW_ONLY
    lease_s: float
    max_attempts: int
    max_in_flight_per_client: int | None = None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _first_seen: dict[_Heartbeat, float] = field(default_factory=dict, init=False)  # monotonic
    _in_doubt: int | None = field(default=None, init=False)  # number of a job

    # --- claim and recover ------------------------------------------------------------

    def claim(self, *, busy: bool, pick: Pick | None = None) -> Claim | None:
        """Fetch the next queued job and take a lease on it.

        A job that was in flight when a worker died is isolated: only an idle worker gets it, and
        no other job is fetched before it. If it crashes the worker again, no other job is hit.

        Args:
            busy: whether the worker has other jobs in flight.
            pick: may choose another job than the next one, or none; not in place of an isolated
                one.
        """
        if (claim := self._claimed_in_doubt()) is not None:
            return claim
        while True:
            with self.database.read() as session:  # without the write lock
                sequence = self._next(session, busy, pick)
            if sequence is None:
                return None
            self._in_doubt = sequence
            with self.database.write() as session:
                row = session.get(JobRow, sequence)
                if row is None or row.status != JobStatus.QUEUED:
                    claim = None  # it was cancelled, or another worker fetched it
                else:
                    now = self.clock()
                    latest = session.scalar(select(func.max(ClientRow.served))) or 0
                    set_ticket(session, row.client, latest + 1)
                    row.status = JobStatus.RUNNING
                    row.worker = self.worker
                    row.lease_until = now + self.lease_s
                    row.attempts += 1
                    row.started_at = row.started_at or now
                    claim = _claim_of(row)
            self._in_doubt = None
            if claim is not None:
                return claim

    def _claimed_in_doubt(self) -> Claim | None:
        """The claim whose commit was not known to succeed, if it did; None also if there is none.

        Without it the job would be this worker's for good, and never run.
        """
        if self._in_doubt is None:
            return None
        with self.database.read() as session:
            mine = (JobRow.sequence == self._in_doubt, _runs_on(self.worker))
            row = session.scalar(select(JobRow).where(*mine))
            claim = None if row is None else _claim_of(row)
        self._in_doubt = None
        return claim

    def _next(self, session: Session, busy: bool, pick: Pick | None) -> int | None:
        """The number of the job that this worker runs next."""
        queues = {
            client: ClientQueue(jobs, oldest) for client, jobs, oldest in session.execute(_QUEUES)
        }
        if not queues:
            return None
        tickets = dict(session.execute(TICKETS).all())
        mine = session.scalars(select(JobRow.client).where(_runs_on(self.worker))).all()
        per_client = self.max_in_flight_per_client or len(mine) + 1
        clients = fairness.in_turn(queues, tickets, mine, per_client)
        if not clients:
            return None
        # The expression keeps SQLite from the index by client, which has all finished jobs too.
        theirs = (JobRow.status == JobStatus.QUEUED, JobRow.client + "" == clients[0])
        sequence, model, isolated = session.execute(
            select(JobRow.sequence, JobRow.model, JobRow.isolated)
            .where(*theirs)
            .order_by(JobRow.urgency, JobRow.sequence)
            .limit(1)
        ).one()
        if isolated or pick is None:
            return None if isolated and busy else sequence
        due = Candidate(sequence, clients[0], model)
        picked = pick(due, lambda: _candidates(session, clients))
        return None if picked is None else picked.sequence

    def heartbeat(
        self,
        *,
        ready: bool,
        device: str,
        max_in_flight: int,
        metrics: str = "",
        broken: Mapping[str, str] = MappingProxyType({}),
        memory: EngineMemory | None = None,
    ) -> None:
        """Record that the worker is alive, and extend its leases; see `WorkerRow`."""
        lease_until = self.clock() + self.lease_s
        with self.database.write(durable=False) as session:
            session.merge(
                WorkerRow(
                    id=self.worker,
                    ready=ready,
                    device=device,
                    max_in_flight=max_in_flight,
                    lease_until=lease_until,
                    metrics=metrics,
                    broken=json.dumps(dict(broken)),
                    memory="{}" if memory is None else json.dumps(asdict(memory)),
                )
            )
            mine = update(JobRow).where(_runs_on(self.worker))
            session.execute(mine.values(lease_until=lease_until))

    def give_back(self) -> int:
        """Put the jobs of this worker back in the queue when it stops; their number.

        Counts no attempt. Jobs to be cancelled are ended instead.
        """
        with self.database.write() as session:
            present = session.get(WorkerRow, self.worker)
            if present is not None:
                session.delete(present)
            rows = session.scalars(select(JobRow).where(_runs_on(self.worker))).all()
            for row in rows:
                row.attempts -= 1
            return requeue(session, rows, self.clock(), self.max_in_flight_per_client)

    def recover_own(self) -> int:
        """Put back the jobs of a dead process that had this worker's id; their number."""
        return self._recover(self.worker, None)

    def recover_lapsed(self) -> int:
        """Put back the jobs of workers without a heartbeat for `lease_s`; their number.

        The time is counted on this worker's monotonic clock from when it first saw the last
        heartbeat, so that setting the system clock neither takes jobs from a live worker nor
        leaves those of a dead one. This worker's own jobs are left alone.
        """
        with self.database.read() as session:
            others = [last for last in _heartbeats(session) if last.worker != self.worker]
        now = self.monotonic()
        self._first_seen = {last: self._first_seen.get(last, now) for last in others}
        stalled = [last for last, at in self._first_seen.items() if now - at > self.lease_s]
        return sum(self._recover(last.worker, last) for last in stalled)

    def _recover(self, worker: str, last: _Heartbeat | None) -> int:
        """Put back the jobs of a dead worker; their number.

        Any of the jobs in flight may have crashed it, so each runs isolated from now on. The
        attempt counts only against a job that was alone.

        Args:
            last: its last known heartbeat; nothing is done if there was another one since.
        """
        query = select(JobRow).where(_runs_on(worker))
        with self.database.read() as session:  # without the write lock
            if session.scalar(query.limit(1)) is None:
                return 0
        with self.database.write() as session:
            if last is not None and last not in _heartbeats(session):
                return 0
            now = self.clock()
            rows = session.scalars(query.order_by(JobRow.sequence)).all()
            for row in rows:
                row.isolated = True
                if len(rows) > 1:
                    row.attempts -= 1
                if row.attempts >= self.max_attempts and not row.cancel_requested:
                    end(session, row, now, JobStatus.FAILED, _interrupted(row.attempts))
            interrupted = [row for row in rows if row.status == JobStatus.RUNNING]
            requeue(session, interrupted, now, self.max_in_flight_per_client)
            return len(rows)

    # --- reporting -------------------------------------------------------------------------

    def cancel_requests(self) -> list[str]:
        """The ids of this worker's running jobs that are to be cancelled."""
        with self.database.read() as session:
            mine = (JobRow.worker == self.worker, JobRow.cancel_requested)
            return list(session.scalars(select(JobRow.id).where(*mine)))

    def record(self, events: Sequence[NewEvent], steps: dict[str, tuple[int, int]]) -> None:
        """Append progress of running jobs, without a sync: a power cut may lose it.

        `steps` has the steps done and the total of each job.
        """
        jobs = {event.job_id for event in events} | steps.keys()
        with self.database.write(durable=False) as session:
            rows = session.scalars(select(JobRow).where(JobRow.id.in_(jobs), _runs_on(self.worker)))
            held = {row.id: row for row in rows}
            log(session, self.clock(), *(event for event in events if event.job_id in held))
            for job_id in steps.keys() & held.keys():
                held[job_id].step, held[job_id].steps = steps[job_id]

    def add_note(self, job_id: str, text: str) -> None:
        """Add a warning to a job. The same text is added once, also over several attempts.

        A `Message` keeps its code and values.
        """
        with self.database.write(durable=False) as session:
            row = self._held(session, job_id)
            notes = notes_of(row)
            if text not in {note.text for note in notes}:
                new = note_of(text)
                row.notes = notes_text([*notes, new])
                log(session, self.clock(), NewEvent(job_id, EventType.NOTE, note_data(new)))

    def add_image(self, image: ImageRow, explanation: ExplanationRow | None = None) -> None:
        """Record an image whose file is on disk, and that of how it was made, if there is one.

        A second attempt adds no second record. Its picture is the same; its explanation, which
        has other seconds, took the first one's place.
        """
        with self.database.write() as session:
            self._held(session, image.job_id)
            if session.get(ImageRow, image.id) is None:
                image.created_at = self.clock()
                session.add(image)
                session.flush()
                data = image_of(image).model_dump(mode="json")
                event = NewEvent(image.job_id, EventType.IMAGE, {"image": data})
                log(session, self.clock(), event)
            if explanation is not None:
                session.merge(explanation)

    def finish(self, job_id: str, status: JobStatus, problem: Problem | None = None) -> None:
        """End a running job of this worker. It is on disk when this returns."""
        with self.database.write() as session:
            row = self._held(session, job_id)
            if status is JobStatus.SUCCEEDED:
                row.step = row.steps
            end(session, row, self.clock(), status, problem)

    def _held(self, session: Session, job_id: str) -> JobRow:
        row = session.scalar(select(JobRow).where(JobRow.id == job_id))
        if row is None or row.worker != self.worker or row.status != JobStatus.RUNNING:
            raise LeaseLostError(job_id)
        return row

    def learn_speed(self, kind: Kind, speed: Speed) -> None:
        """Add a measured speed to the moving average that estimates use."""
        with self.database.write(durable=False) as session:
            row = session.get(SpeedRow, (kind.model, kind.pixels, kind.in_flight))
            if row is None:
                session.add(SpeedRow(**vars(kind), **vars(speed)))
            else:
                blended = Speed(row.step_seconds, row.other_seconds).blended(speed)
                row.step_seconds, row.other_seconds = blended.step_seconds, blended.other_seconds


def _claim_of(row: JobRow) -> Claim:
    return Claim(
        row.id,
        row.client,
        request_of(row),
        workload_of(row),
        row.attempts,
        row.request_id,
        row.isolated,
    )


def _candidates(session: Session, clients: Sequence[str]) -> list[Candidate]:
    """Jobs that could go before the next one: of each model the oldest of each client.

    They are in the order of `clients`, which have queued jobs. A client's less urgent jobs, and
    those behind an isolated one, are not among them.
    """
    found: dict[str, list[tuple[int, int, str, bool]]] = {client: [] for client in clients}
    for client, urgency, model, isolated, sequence in session.execute(_FIRST_OF_MODEL):
        if client in found:
            found[client].append((urgency, sequence, model, isolated))
    candidates = []
    for client, jobs in found.items():
        most_urgent = min(jobs)[0]
        for urgency, sequence, model, isolated in sorted(jobs):
            if urgency > most_urgent or isolated:
                break
            candidates.append(Candidate(sequence, client, model))
    return candidates


def _runs_on(worker: str) -> ColumnElement[bool]:
    return (JobRow.worker == worker) & (JobRow.status == JobStatus.RUNNING)


def _heartbeats(session: Session) -> set[_Heartbeat]:
    """The last heartbeat of each worker with jobs in flight."""
    rows = session.execute(
        select(JobRow.worker, func.max(JobRow.lease_until), func.count())
        .where(JobRow.status == JobStatus.RUNNING)
        .group_by(JobRow.worker)
    )
    return {
        _Heartbeat(worker, lease_until, jobs)
        for worker, lease_until, jobs in rows
        if worker is not None and lease_until is not None
    }


def _interrupted(attempts: int) -> Problem:
    return Problem(
        type="urn:darkroom:problem:interrupted",
        title="The job was interrupted too often",
        status=500,
        detail=message(
            "interrupted",
            "The worker stopped {attempts} times while it worked on this job.",
            attempts=attempts,
        ),
    )
