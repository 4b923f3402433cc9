"""The worker's side of the queue: claim, report, finish and recover jobs.

Every change is one transaction, which checks that the worker still holds the job's lease. Leases
belong to a process, not to a worker's name: a process that was cut off while another one got its
name can change nothing that was taken over.
"""

import json
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, literal, select, update
from sqlalchemy.orm import Session

from darkroom.catalog import published
from darkroom.engine.base import EngineMemory
from darkroom.errors import DarkroomError, message
from darkroom.queue import fairness
from darkroom.queue.affinity import Candidate
from darkroom.queue.estimate import Kind, Speed
from darkroom.queue.fairness import ClientQueue
from darkroom.queue.peers import Peers
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

LOOK_S = 0.5  # between two looks at who has a name

_QUEUES = (
    select(JobRow.client, func.count(), func.min(JobRow.sequence))
    .where(JobRow.status == JobStatus.QUEUED)
    .group_by(JobRow.client)
)


_ALIKE = (JobRow.client, JobRow.urgency, JobRow.model, JobRow.isolated)
_FIRST_OF_MODEL = (
    select(*_ALIKE, literal(""), func.min(JobRow.sequence))
    .where(JobRow.status == JobStatus.QUEUED)
    .group_by(*_ALIKE)
)
_FIRST_OF_NEEDS = (
    select(*_ALIKE, JobRow.loras, func.min(JobRow.sequence))
    .where(JobRow.status == JobStatus.QUEUED)
    .group_by(*_ALIKE, JobRow.loras)
)

# The next job and what returns the others that may go before it, to the job to claim.
Pick = Callable[[Candidate, Callable[[], Sequence[Candidate]]], Candidate | None]
# Whether this worker has a model and LoRAs.
Has = Callable[[str, Sequence[str]], bool]


class NameTakenError(DarkroomError):
    """Another worker that lives has the name of this one."""


class LeaseLostError(DarkroomError):
    """The worker no longer holds the job's lease, so its result is not recorded."""


class _Found(NamedTuple):
    """The next job, and the highest of all tickets then: each claim makes a higher one."""

    sequence: int
    latest: int


class _Heartbeat(NamedTuple):
    """The trace of a process's last heartbeat in its jobs; the next one changes it."""

    lease: str
    lease_until: float
    jobs: int


@dataclass(eq=False)
class Leases:
    """The jobs leased to one worker process. `heartbeat` may be called from another thread.

    Every method raises DatabaseUnavailableError while the database cannot be used, and a method
    that changes one job raises LeaseLostError if this worker no longer holds it; nothing was
    written then. `record` skips such jobs.

    Attributes:
        worker: its name, unique among live workers.
        device: that it runs on, such as `cpu` or `cuda`.
        lease_s: how long a lease is valid after a heartbeat.
        max_attempts: a job fails after so many interrupted attempts.
        max_in_flight_per_client: None is all.
        affinity_s: how long a job is left for an idle worker that has its model in memory.
        has: which jobs it can do; None is all.
        clock: seconds since the epoch.
        monotonic: seconds on a clock that cannot be set.
        lease: an id of this process, which no other has or had.
        draining: whether it is known to be told to claim nothing new.
    """

    database: Database
    worker: str
    _: KW_ONLY
    device: str = ""
    lease_s: float
    max_attempts: int
    max_in_flight_per_client: int | None = None
    affinity_s: float = 0.0
    has: Has | None = None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    lease: str = field(default_factory=lambda: secrets.token_hex(16))
    draining: bool = field(default=False, init=False)
    _has_name: bool = field(default=False, init=False)
    _peers: Peers = field(init=False)
    _first_seen: dict[_Heartbeat, float] = field(default_factory=dict, init=False)  # monotonic
    _in_doubt: int | None = field(default=None, init=False)  # number of a job

    def __post_init__(self) -> None:
        self._peers = Peers(self.lease, self.device, self.affinity_s, self.clock, self.monotonic)

    def wait_for_name(self, folder: str, wait: Callable[[float], object] = time.sleep) -> None:
        """Wait until no process with another data folder has this worker's name.

        The lock file of a data folder proves that none with the same folder has it.

        Raises:
            NameTakenError: one has it, and lives.
        """
        query = select(WorkerRow.folder, WorkerRow.lease, WorkerRow.seen_at)
        first, began = None, self.monotonic()
        while True:
            with self.database.read() as session:
                found = session.execute(query.where(WorkerRow.id == self.worker)).one_or_none()
            if found is None or found.folder == folder or self.monotonic() - began > self.lease_s:
                return
            if first is not None and found != first:
                raise NameTakenError(
                    f"a worker called {self.worker} already works on this queue elsewhere; give "
                    "one of them another name: worker.name, or DARKROOM_WORKER__NAME"
                )
            first = found
            wait(LOOK_S)

    # --- claim and recover ------------------------------------------------------------

    def claim(
        self, *, busy: bool, pick: Pick | None = None, here: Collection[str] = ()
    ) -> Claim | None:
        """Fetch the next queued job and take a lease on it.

        A job that was in flight when a worker died is isolated: only an idle worker gets it, and
        no other job is fetched before it. If it crashes the worker again, no other job is hit.

        Args:
            busy: whether the worker has other jobs in flight.
            pick: may choose another job than the next one, or none; not in place of an isolated
                one. It may be asked twice.
            here: the models that are in memory, or are about to be.
        """
        if (claim := self._claimed_in_doubt()) is not None:
            return claim
        if self.draining:
            return None
        with self.database.read() as session:  # without the write lock
            found = self._next(session, busy, pick, here)
        if found is None:
            return None
        self._in_doubt = found.sequence
        with self.database.write() as session:
            claim = self._claim(session, found, lambda: self._next(session, busy, pick, here))
        self._in_doubt = None
        return claim

    def _claim(
        self, session: Session, found: "_Found", look: "Callable[[], _Found | None]"
    ) -> Claim | None:
        """Take a lease on the job that was found, or on the one that is next now."""
        mine = select(WorkerRow.draining).where(WorkerRow.id == self.worker)
        if session.scalar(mine):
            self.draining = True
            return None
        latest = session.scalar(select(func.max(ClientRow.served))) or 0
        row = session.get(JobRow, found.sequence)
        if latest != found.latest or row is None or row.status != JobStatus.QUEUED:
            # Another worker has claimed one since, or it was cancelled: who is next may have
            # changed. Nobody claims while this looks again.
            again = look()
            if again is None:
                return None
            self._in_doubt = again.sequence
            row = session.get_one(JobRow, again.sequence)
        now = self.clock()
        set_ticket(session, row.client, latest + 1)
        row.status = JobStatus.RUNNING
        row.worker, row.device, row.lease = self.worker, self.device, self.lease
        row.lease_until = now + self.lease_s
        row.attempts += 1
        row.started_at = row.started_at or now
        return _claim_of(row)

    def _claimed_in_doubt(self) -> Claim | None:
        """The claim whose commit was not known to succeed, if it did; None also if there is none.

        Without it the job would be this worker's for good, and never run.
        """
        if self._in_doubt is None:
            return None
        with self.database.read() as session:
            mine = (JobRow.sequence == self._in_doubt, _held_by(self.lease))
            row = session.scalar(select(JobRow).where(*mine))
            claim = None if row is None else _claim_of(row)
        self._in_doubt = None
        return claim

    def _next(
        self, session: Session, busy: bool, pick: Pick | None, here: Collection[str]
    ) -> "_Found | None":
        """The job that this worker runs next."""
        queues = {
            client: ClientQueue(jobs, oldest) for client, jobs, oldest in session.execute(_QUEUES)
        }
        if not queues:
            return None
        tickets = dict(session.execute(TICKETS).all())
        latest = max(tickets.values(), default=0)
        mine = session.scalars(select(JobRow.client).where(_held_by(self.lease))).all()
        per_client = self.max_in_flight_per_client or len(mine) + 1
        clients = fairness.in_turn(queues, tickets, mine, per_client)
        if not clients:
            return None
        self._peers.read_again(session)
        if self.has is not None or self._peers:
            return self._next_for_me(session, busy, pick, here, clients, latest)
        # The expression keeps SQLite from the index by client, which has all finished jobs too.
        theirs = (JobRow.status == JobStatus.QUEUED, JobRow.client + "" == clients[0])
        sequence, model, isolated = session.execute(
            select(JobRow.sequence, JobRow.model, JobRow.isolated)
            .where(*theirs)
            .order_by(JobRow.urgency, JobRow.sequence)
            .limit(1)
        ).one()
        if isolated or pick is None:
            return None if isolated and busy else _Found(sequence, latest)
        due = Candidate(sequence, clients[0], model)
        picked = pick(due, lambda: _candidates(session, clients))
        return None if picked is None else _Found(picked.sequence, latest)

    def _next_for_me(
        self,
        session: Session,
        busy: bool,
        pick: Pick | None,
        here: Collection[str],
        clients: Sequence[str],
        latest: int,
    ) -> "_Found | None":
        """The same where this worker cannot do all jobs, or others had better do some."""

        def is_mine(job: Candidate) -> bool:
            able = self.has is None or self.has(job.model, job.loras)
            return able and not self._peers.should_have(session, job, here)

        jobs = _candidates(session, clients, is_mine)
        due = next(iter(jobs), None)
        if due is None or (due.isolated and busy):
            return None
        picked = due if due.isolated or pick is None else pick(due, lambda: jobs)
        return None if picked is None else _Found(picked.sequence, latest)

    def heartbeat(
        self,
        *,
        ready: bool,
        device: str,
        max_in_flight: int,
        metrics: str = "",
        broken: Mapping[str, str] = MappingProxyType({}),
        memory: EngineMemory | None = None,
        about: Mapping[str, Any] = MappingProxyType({}),
        catalog: str = published.UNKNOWN,
    ) -> bool:
        """Record that the worker is alive, and extend its leases; see `WorkerRow`.

        Args:
            about: more columns of the worker's row.
            catalog: what it has; written only if that has changed.

        Returns:
            Whether the name is still this process's; the first call makes it so.
        """
        now = self.clock()
        lease_until = now + self.lease_s
        values = {
            "ready": ready,
            "device": device,
            "max_in_flight": max_in_flight,
            "lease_until": lease_until,
            "seen_at": now,
            "metrics": metrics,
            "broken": json.dumps(dict(broken)),
            "memory": "{}" if memory is None else json.dumps(asdict(memory)),
            **about,
        }
        digest = sha256(catalog.encode()).hexdigest() if catalog != published.UNKNOWN else ""
        has = {"catalog": catalog, "catalog_digest": digest}
        with self.database.write(durable=False) as session:
            mine = update(JobRow).where(_held_by(self.lease))
            session.execute(mine.values(lease_until=lease_until))
            known = select(WorkerRow.lease, WorkerRow.draining, WorkerRow.catalog_digest)
            found = session.execute(known.where(WorkerRow.id == self.worker)).one_or_none()
            if found is None or found.catalog_digest != digest:
                values |= has
            if found is None:
                session.add(WorkerRow(id=self.worker, lease=self.lease, **values))
            elif found.lease == self.lease or not self._has_name:
                row = update(WorkerRow).where(WorkerRow.id == self.worker)
                session.execute(row.values(lease=self.lease, **values))
            else:
                return False
            self.draining = found is not None and found.draining
            self._peers.read(session)
        self._has_name = True
        return True

    def give_back(self) -> int:
        """Put the jobs of this worker back in the queue when it stops; their number.

        Counts no attempt. Jobs to be cancelled are ended instead.
        """
        with self.database.write() as session:
            present = session.get(WorkerRow, self.worker)
            if present is not None and present.lease in ("", self.lease):
                if present.draining:  # it does so still when it comes back
                    present.lease_until, present.ready = 0.0, False
                else:
                    session.delete(present)
            rows = session.scalars(select(JobRow).where(_held_by(self.lease))).all()
            for row in rows:
                row.attempts -= 1
            return requeue(session, rows, self.clock(), self.max_in_flight_per_client)

    def recover_own(self) -> int:
        """Put back the jobs of dead processes that had this worker's name; their number."""
        theirs = (JobRow.status == JobStatus.RUNNING, JobRow.worker == self.worker)
        with self.database.read() as session:
            leases = set(session.scalars(select(JobRow.lease).where(*theirs)))
        return sum(self._recover(lease, None) for lease in leases if lease is not None)

    def recover_lapsed(self) -> int:
        """Put back the jobs of workers without a heartbeat for `lease_s`; their number.

        The time is counted on this worker's monotonic clock from when it first saw the last
        heartbeat, so that setting the system clock neither takes jobs from a live worker nor
        leaves those of a dead one. This worker's own jobs are left alone.
        """
        with self.database.read() as session:
            others = [last for last in _heartbeats(session) if last.lease != self.lease]
        now = self.monotonic()
        self._first_seen = {last: self._first_seen.get(last, now) for last in others}
        stalled = [last for last, at in self._first_seen.items() if now - at > self.lease_s]
        return sum(self._recover(last.lease, last) for last in stalled)

    def _recover(self, lease: str, last: _Heartbeat | None) -> int:
        """Put back the jobs of a dead worker; their number.

        Any of the jobs in flight may have crashed it, so each runs isolated from now on. The
        attempt counts only against a job that was alone.

        Args:
            last: its last known heartbeat; nothing is done if there was another one since.
        """
        query = select(JobRow).where(_held_by(lease))
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
            mine = (JobRow.lease == self.lease, JobRow.cancel_requested)
            return list(session.scalars(select(JobRow.id).where(*mine)))

    def record(self, events: Sequence[NewEvent], steps: dict[str, tuple[int, int]]) -> None:
        """Append progress of running jobs, without a sync: a power cut may lose it.

        `steps` has the steps done and the total of each job.
        """
        jobs = {event.job_id for event in events} | steps.keys()
        with self.database.write(durable=False) as session:
            rows = session.scalars(select(JobRow).where(JobRow.id.in_(jobs), _held_by(self.lease)))
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
                image.worker, image.device = self.worker, self.device
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

    def check(self, job_id: str) -> None:
        """Check that this worker still holds a job. Called in any thread."""
        with self.database.read() as session:
            self._held(session, job_id)

    def _held(self, session: Session, job_id: str) -> JobRow:
        row = session.scalar(select(JobRow).where(JobRow.id == job_id))
        if row is None or row.lease != self.lease or row.status != JobStatus.RUNNING:
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


def _candidates(
    session: Session,
    clients: Sequence[str],
    is_mine: Callable[[Candidate], bool] | None = None,
) -> list[Candidate]:
    """Jobs that could go before the next one: of each model the oldest of each client.

    They are in the order of `clients`, which have queued jobs. A client's less urgent jobs, and
    those behind an isolated one, are not among them.

    Args:
        is_mine: whether this worker may have a job; the others are as if they were not there, and
            an isolated one may come first of its client's.
    """
    found: dict[str, list[tuple[int, int, Candidate]]] = {client: [] for client in clients}
    query = _FIRST_OF_MODEL if is_mine is None else _FIRST_OF_NEEDS
    for client, urgency, model, isolated, loras, sequence in session.execute(query):
        if client in found:
            job = Candidate(sequence, client, model, tuple(loras.splitlines()), isolated)
            found[client].append((urgency, sequence, job))
    candidates = []
    for jobs in found.values():
        most_urgent, first = None, True
        for urgency, _, job in sorted(jobs, key=lambda each: each[:2]):
            if is_mine is not None and not is_mine(job):
                continue
            most_urgent = urgency if most_urgent is None else most_urgent
            if urgency > most_urgent or (job.isolated and not (first and is_mine is not None)):
                break
            candidates.append(job)
            if job.isolated:
                break
            first = False
    return candidates


def _held_by(lease: str) -> ColumnElement[bool]:
    return (JobRow.lease == lease) & (JobRow.status == JobStatus.RUNNING)


def _heartbeats(session: Session) -> set[_Heartbeat]:
    """The last heartbeat of each process with jobs in flight."""
    rows = session.execute(
        select(JobRow.lease, func.max(JobRow.lease_until), func.count())
        .where(JobRow.status == JobStatus.RUNNING)
        .group_by(JobRow.lease)
    )
    return {
        _Heartbeat(lease, lease_until, jobs)
        for lease, lease_until, jobs in rows
        if lease is not None and lease_until is not None
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
