"""The state of the queue, and positions and estimates computed from it. One session, no commits."""

import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, tuple_
from sqlalchemy.orm import Session

from darkroom.queue import fairness
from darkroom.queue.estimate import Estimator, Kind, Speed, Work
from darkroom.queue.fairness import Waiting
from darkroom.requests import Workload
from darkroom.responses import JobStatus
from darkroom.storage.records import Estimate
from darkroom.storage.tables import ClientRow, JobRow, SpeedRow, WorkerRow

WORK = (JobRow.model, JobRow.pixels, JobRow.images, JobRow.steps, JobRow.step)
UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)
LATELY_S = 1.0  # a job that ended within this time is often followed by the client's next one
LATEST = 64  # jobs that are searched for those
FEW = 4  # jobs whose ranks are counted one by one
IDLE_KEPT = 100  # clients without a queued job whose tickets are kept


@dataclass(frozen=True)
class RunningJob:
    """A job in flight."""

    sequence: int
    client: str
    work: Work


@dataclass(frozen=True)
class QueueSnapshot:
    """The queue at one moment.

    Attributes:
        waiting: clients with queued jobs.
        queued: the work of their jobs, by client.
        running: the jobs in flight, the oldest first.
        tickets: by client, for `fairness`.
        places: jobs in flight together, of all workers.
        per_client: the most of them of one client.
        speeds: what was measured.
        lately: jobs that were in flight a moment ago.
    """

    waiting: Mapping[str, Waiting]
    queued: Mapping[str, Sequence[Work]]
    running: Sequence[RunningJob]
    tickets: Mapping[str, int]
    places: int
    per_client: int
    speeds: Mapping[Kind, Speed]
    lately: int

    @cached_property
    def pending(self) -> Counter[str]:
        """The number of unfinished jobs by client."""
        queued = Counter({client: waiting.jobs for client, waiting in self.waiting.items()})
        return queued + Counter(job.client for job in self.running)

    @cached_property
    def estimator(self) -> Estimator:
        """For the jobs of this snapshot."""
        together = sum(min(jobs, self.per_client) for jobs in self.pending.values())
        slots = min(self.places, max(together, self.lately))
        return Estimator(
            self.speeds,
            [job.work for job in self.running],
            self.queued,
            slots,
            refill=min(1.0, self.lately / max(1, slots)),
        )

    def with_job(self, client: str, work: Workload) -> "QueueSnapshot":
        """The snapshot with one more job queued."""
        tickets, queued = dict(self.tickets), dict(self.queued)
        known = self.waiting.get(client)
        if known is None:
            tickets[client] = fairness.joining(
                tickets.get(client), max(tickets.values(), default=0)
            )
        newest = max((waiting.oldest for waiting in self.waiting.values()), default=0) + 1
        waiting = Waiting(1, newest) if known is None else replace(known, jobs=known.jobs + 1)
        queued[client] = (*queued.get(client, ()), _new_work(work))
        return replace(
            self, waiting={**self.waiting, client: waiting}, queued=queued, tickets=tickets
        )

    def estimates(self, wanted: Mapping[tuple[str, int], Work]) -> dict[tuple[str, int], Estimate]:
        """Positions and ETAs of queued jobs.

        Args:
            wanted: the work of each, by its client and its rank among that client's queued jobs,
                which begins at 0.
        """
        found: dict[tuple[str, int], Estimate] = {}
        ahead: Counter[str] = Counter()
        turns = fairness.order(
            self.waiting,
            self.tickets,
            [job.client for job in self.running],
            places=self.places,
            per_client=self.per_client,
        )
        for position, client in enumerate(turns):
            key = client, ahead[client]
            if key in wanted:
                end = self.estimator.queued_end(wanted[key], ahead)
                found[key] = Estimate(position, end)
                if len(found) == len(wanted):
                    break
            ahead[client] += 1
        return found

    def first_end(self, client: str | None) -> float | None:
        """Seconds until the first job of a client, or of anybody, ends; None if unknown."""
        ends = [
            end
            for job, end in zip(self.running, self.estimator.running_ends(), strict=True)
            if client in (None, job.client)
        ]
        firsts = {
            (name, 0): _mean(works) for name, works in self.queued.items() if client in (None, name)
        }
        ends += [estimate.eta_seconds for estimate in self.estimates(firsts).values()]
        return min((end for end in ends if end is not None), default=None)


def read(session: Session, now: float, per_client: int | None) -> QueueSnapshot:
    """Read the state of the queue. Takes a few milliseconds, however many jobs are queued.

    Args:
        session: to read in.
        now: seconds since the epoch.
        per_client: the most jobs of one client that a worker has in flight; None is all.
    """
    waiting: dict[str, Waiting] = {}
    queued: dict[str, list[Work]] = defaultdict(list)
    for client, oldest, model, pixels, images, steps, jobs in session.execute(
        select(
            JobRow.client,
            func.min(JobRow.sequence),
            JobRow.model,
            JobRow.pixels,
            func.sum(JobRow.images),
            func.sum(JobRow.steps),
            func.count(),
        )
        .where(JobRow.status == JobStatus.QUEUED)
        .group_by(JobRow.client, JobRow.model, JobRow.pixels)
    ):
        known = waiting.get(client, Waiting(0, oldest))
        waiting[client] = Waiting(known.jobs + jobs, min(known.oldest, oldest))
        queued[client].append(Work(model, pixels, images, steps, steps, jobs))
    running = session.execute(
        select(JobRow.sequence, JobRow.client, *WORK)
        .where(JobRow.status == JobStatus.RUNNING)
        .order_by(JobRow.sequence)
    )
    workers, places = session.execute(
        select(func.count(), func.sum(WorkerRow.max_in_flight)).where(WorkerRow.lease_until > now)
    ).one()
    places = places or 1
    return QueueSnapshot(
        waiting=waiting,
        queued=queued,
        running=[RunningJob(row[0], row[1], _work(*row[2:])) for row in running],
        tickets=read_tickets(session),
        places=places,
        per_client=places if per_client is None else per_client * max(1, workers),
        speeds={
            Kind(row.model, row.pixels, row.in_flight): Speed(row.step_seconds, row.other_seconds)
            for row in session.scalars(select(SpeedRow))
        },
        lately=_in_flight_at(session, now - LATELY_S),
    )


def _work(model: str, pixels: int, images: int, steps: int, step: int) -> Work:
    return Work(model, pixels, images, max(0, steps - step), steps)


def _new_work(work: Workload) -> Work:
    return Work(work.model, work.pixels, work.images, work.steps, work.steps)


def _mean(works: Sequence[Work]) -> Work:
    """A job like the first kind of a client's, of mean size."""
    work = works[0]
    steps = work.steps / work.jobs
    return Work(work.model, work.pixels, work.images / work.jobs, steps, steps)


def _in_flight_at(session: Session, moment: float) -> int:
    """How many of the latest jobs were in flight at a moment."""
    latest = session.execute(
        select(JobRow.started_at, JobRow.finished_at).order_by(JobRow.sequence.desc()).limit(LATEST)
    )
    return sum(
        began is not None and began <= moment and (ended is None or moment < ended)
        for began, ended in latest
    )


def count_pending(session: Session) -> Counter[str]:
    """The number of unfinished jobs by client."""
    rows = session.execute(
        select(JobRow.client, func.count())
        .where(JobRow.status.in_(UNFINISHED))
        .group_by(JobRow.client)
    )
    return Counter({client: jobs for client, jobs in rows})  # noqa: C416


def newcomer(
    session: Session, queue: QueueSnapshot, client: str, urgency: int, work: Workload
) -> Estimate:
    """Position and ETA of a job that is about to be queued."""
    key = client, _rank(session, client, urgency, sys.maxsize)
    return queue.with_job(client, work).estimates({key: _new_work(work)})[key]


def estimates(
    session: Session, now: float, per_client: int | None, wanted: Collection[int]
) -> dict[int, Estimate]:
    """Positions and ETAs of unfinished jobs, by number; see `read` for the arguments."""
    queue = read(session, now, per_client)
    rows = session.execute(
        select(JobRow.sequence, JobRow.client, JobRow.urgency, *WORK).where(
            JobRow.status == JobStatus.QUEUED, JobRow.sequence.in_(wanted)
        )
    ).all()
    ranks = _ranks(session, rows)
    keys = {row.sequence: (row.client, ranks[row.sequence]) for row in rows}
    known = queue.estimates({keys[row.sequence]: _work(*row[3:]) for row in rows})
    found = {sequence: known[key] for sequence, key in keys.items()}
    for job, end in zip(queue.running, queue.estimator.running_ends(), strict=True):
        found[job.sequence] = Estimate(None, end)
    return {sequence: found.get(sequence, Estimate()) for sequence in wanted}


def _rank(session: Session, client: str, urgency: int, sequence: int) -> int:
    """How many of a client's queued jobs go before one of this urgency and number."""
    before = tuple_(JobRow.urgency, JobRow.sequence) < (urgency, sequence)
    queued = JobRow.status == JobStatus.QUEUED
    return session.scalar(select(func.count()).where(queued, has_client(client), before)) or 0


def has_client(client: str) -> ColumnElement[bool]:
    """The condition that a queued job is this client's.

    The expression keeps SQLite from the index by client, which has all finished jobs too.
    """
    return JobRow.client + "" == client


def _ranks(session: Session, rows: Sequence[Any]) -> dict[int, int]:
    """The rank of each queued job among its client's, by number."""
    if len(rows) <= FEW:
        return {row.sequence: _rank(session, row.client, row.urgency, row.sequence) for row in rows}
    ordered = session.execute(
        select(JobRow.sequence, JobRow.client)
        .where(JobRow.status == JobStatus.QUEUED)
        .order_by(JobRow.urgency, JobRow.sequence)
    )
    ranks: dict[int, int] = {}
    counts: Counter[str] = Counter()
    for sequence, client in ordered:
        ranks[sequence] = counts[client]
        counts[client] += 1
    return ranks


# --- tickets -------------------------------------------------------------------------------


def read_tickets(session: Session) -> dict[str, int]:
    """Every client's ticket."""
    rows = session.execute(select(ClientRow.client, ClientRow.served))
    return {client: ticket for client, ticket in rows}  # noqa: C416


def join(session: Session, queue: QueueSnapshot, client: str) -> None:
    """Give a client a ticket, unless it has queued jobs and therefore one already.

    Tickets of clients without queued jobs are deleted when there are many. Such a client gets the
    same ticket from `fairness.joining` as if it had none.
    """
    if client in queue.waiting:
        return
    tickets, latest = queue.tickets, max(queue.tickets.values(), default=0)
    session.merge(ClientRow(client=client, served=fairness.joining(tickets.get(client), latest)))
    idle = [
        name
        for name, ticket in tickets.items()
        if name != client and name not in queue.waiting and ticket < latest - 1
    ]
    if len(idle) > IDLE_KEPT:
        session.execute(delete(ClientRow).where(ClientRow.client.in_(idle)))


def serve(session: Session, client: str) -> None:
    """Give a client whose job is claimed a ticket above all others."""
    latest = session.scalar(select(func.max(ClientRow.served))) or 0
    session.merge(ClientRow(client=client, served=latest + 1))
