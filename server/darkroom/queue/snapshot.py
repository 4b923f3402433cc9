"""How the queue stands, and what those in it may expect. One session, no commits."""

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from darkroom.queue import fairness
from darkroom.queue.estimate import Estimator, Kind, Speed, Work
from darkroom.queue.fairness import QueuedJob
from darkroom.queue.resubmissions import returns
from darkroom.requests import Workload
from darkroom.responses import JobStatus
from darkroom.storage.records import Estimate
from darkroom.storage.tables import ClientRow, JobRow, SpeedRow, WorkerRow

UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)
NEWCOMER = sys.maxsize  # stands for the number that a job will be given
WORK = (  # the columns of `Work`, in its order
    JobRow.client,
    JobRow.model,
    JobRow.pixels,
    JobRow.images,
    JobRow.step,
    JobRow.steps,
    JobRow.isolated,
)
LATEST = 64  # jobs from which it is judged whether people come again
IDLE_KEPT = 100  # clients without a queued job whose tickets are kept


@dataclass(frozen=True)
class QueueSnapshot:
    """The queue at one moment.

    Attributes:
        waiting: queued jobs.
        running: numbers and clients of the jobs in flight, the oldest first.
        tickets: by client, for `fairness`.
        places: jobs in flight together, of all workers.
        per_client: how many of them may be one client's.
    """

    waiting: tuple[QueuedJob, ...]
    running: tuple[tuple[int, str], ...]
    tickets: Mapping[str, int]
    places: int
    per_client: int

    @cached_property
    def pending(self) -> Counter[str]:
        """Unfinished jobs by client."""
        clients = [job.client for job in self.waiting]
        return Counter([*clients, *(client for _, client in self.running)])

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Numbers of the queued jobs, the next one first."""
        jobs = fairness.order(
            self.waiting,
            self.tickets,
            [client for _, client in self.running],
            places=self.places,
            per_client=self.per_client,
        )
        return tuple(job.sequence for job in jobs)

    def with_job(self, sequence: int, client: str, urgency: int) -> "QueueSnapshot":
        """As it is with one more job queued."""
        tickets = dict(self.tickets)
        if all(job.client != client for job in self.waiting):
            latest = max(tickets.values(), default=0)
            tickets[client] = fairness.joining(tickets.get(client), latest)
        job = QueuedJob(sequence, client, urgency)
        return replace(self, waiting=(*self.waiting, job), tickets=tickets)


def read(session: Session, now: float, per_client: int | None) -> QueueSnapshot:
    """How the queue stands.

    Args:
        session: to read in.
        now: seconds since the epoch.
        per_client: jobs of one client that a worker may have in flight; None is all.
    """
    unfinished = session.execute(
        select(JobRow.sequence, JobRow.client, JobRow.urgency, JobRow.status)
        .where(JobRow.status.in_(UNFINISHED))
        .order_by(JobRow.sequence)
    ).all()
    workers, places = session.execute(
        select(func.count(), func.sum(WorkerRow.max_in_flight)).where(WorkerRow.lease_until > now)
    ).one()
    places = places or 1
    return QueueSnapshot(
        waiting=tuple(
            QueuedJob(sequence, client, urgency)
            for sequence, client, urgency, status in unfinished
            if status == JobStatus.QUEUED
        ),
        running=tuple(
            (sequence, client)
            for sequence, client, _, status in unfinished
            if status == JobStatus.RUNNING
        ),
        tickets=read_tickets(session),
        places=places,
        per_client=places if per_client is None else per_client * max(1, workers),
    )


def estimates(
    session: Session, now: float, per_client: int | None, wanted: Collection[int]
) -> dict[int, Estimate]:
    """What unfinished jobs may expect, by number; see `read` for the rest."""
    queue = read(session, now, per_client)
    ends: dict[int, float] = {}
    for sequence, end in _ends(session, queue, now):
        ends[sequence] = end
        if len(ends.keys() & wanted) == len(wanted):
            break
    positions = {sequence: position for position, sequence in enumerate(queue.order)}
    return {sequence: Estimate(positions.get(sequence), ends.get(sequence)) for sequence in wanted}


def newcomers_end(
    session: Session,
    queue: QueueSnapshot,
    now: float,
    client: str,
    urgency: int,
    asked: Workload,
) -> float | None:
    """Seconds to the end of a job that is about to be queued; None if nobody knows."""
    work = Work(client, asked.model, asked.pixels, asked.images, 0, asked.steps)
    queue = queue.with_job(NEWCOMER, client, urgency)
    ends = _ends(session, queue, now, work)
    return next((end for sequence, end in ends if sequence == NEWCOMER), None)


def first_end(
    session: Session, queue: QueueSnapshot, now: float, client: str | None
) -> float | None:
    """Seconds to the first end of a client's jobs, or of anybody's; None if nobody knows."""
    clients = {job.sequence: job.client for job in queue.waiting} | dict(queue.running)
    ends = _ends(session, queue, now)
    return next((end for number, end in ends if client in (None, clients[number])), None)


def _ends(
    session: Session, queue: QueueSnapshot, now: float, newcomer: Work | None = None
) -> Iterator[tuple[int, float]]:
    """Which job ends in how many seconds, the first one first, while it can be foreseen."""
    rows = session.execute(
        select(JobRow.sequence, *WORK).where(JobRow.status.in_(UNFINISHED))
    ).all()
    works: dict[int, Work] = {} if newcomer is None else {NEWCOMER: newcomer}
    works |= {row.sequence: Work(*row[1:]) for row in rows}
    line = [*(sequence for sequence, _ in queue.running), *queue.order]
    speeds = {
        Kind(row.model, row.pixels, row.in_flight): Speed(row.step_seconds, row.other_seconds)
        for row in session.scalars(select(SpeedRow))
    }
    latest = session.execute(
        select(JobRow.created_at, JobRow.finished_at, *WORK)
        .order_by(JobRow.sequence.desc())
        .limit(LATEST)
    ).all()
    spans: list[tuple[float, float | None]] = [(accepted, ended) for accepted, ended, *_ in latest]
    again = returns(spans if newcomer is None else [*spans, (now, None)], now)
    estimator = Estimator(
        speeds,
        queue.places,
        per_client=queue.per_client,
        returning=again.share,
        due=[(Work(*latest[index][2:]), certainty) for index, certainty in again.due],
    )
    for index, end in estimator.ends([works[sequence] for sequence in line]):
        yield line[index], end


# --- tickets -------------------------------------------------------------------------------


def read_tickets(session: Session) -> dict[str, int]:
    """Every client's ticket."""
    rows = session.execute(select(ClientRow.client, ClientRow.served))
    return {client: ticket for client, ticket in rows}  # noqa: C416


def join(session: Session, queue: QueueSnapshot, client: str) -> None:
    """Give a client its place in the rotation, unless it is there already.

    Those who are not there any more are forgotten when there are many: with nothing queued, they
    would come back at the same place without a ticket, which `fairness.joining` gives them.
    """
    queued = {job.client for job in queue.waiting}
    if client in queued:
        return
    tickets, latest = queue.tickets, max(queue.tickets.values(), default=0)
    session.merge(ClientRow(client=client, served=fairness.joining(tickets.get(client), latest)))
    idle = [
        name
        for name, ticket in tickets.items()
        if name != client and name not in queued and ticket < latest - 1
    ]
    if len(idle) > IDLE_KEPT:
        session.execute(delete(ClientRow).where(ClientRow.client.in_(idle)))


def serve(session: Session, client: str) -> None:
    """A job of this client is claimed: it goes behind all others."""
    latest = session.scalar(select(func.max(ClientRow.served))) or 0
    session.merge(ClientRow(client=client, served=latest + 1))
