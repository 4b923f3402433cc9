"""The state of the queue, and positions and estimates computed from it. One session, no commits."""

import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.orm import Session

from darkroom.queue import fairness
from darkroom.queue.estimate import Estimator, Kind, Speed, Work
from darkroom.queue.fairness import ClientQueue
from darkroom.requests import Workload
from darkroom.responses import JobStatus
from darkroom.storage.records import Estimate
from darkroom.storage.tables import ClientRow, JobRow, SpeedRow, WorkerRow

UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)
LATELY_S = 1.0  # a job that ended within this time is often followed by the client's next one
LATEST = 64  # jobs that are searched for those

TICKETS = select(ClientRow.client, ClientRow.served)
_SPEEDS = select(SpeedRow.__table__)  # the fields of a `Kind`, then those of its `Speed`

# Read from the index `jobs_queued` alone, which holds what this sums.
_QUEUED = (
    select(
        JobRow.client,
        JobRow.model,
        JobRow.pixels,
        func.min(JobRow.sequence),
        func.sum(JobRow.images),
        func.sum(JobRow.steps),
        func.count(),
        func.count().filter(JobRow.urgency <= bindparam("urgency")),
    )
    .where(JobRow.status == JobStatus.QUEUED)
    .group_by(JobRow.client, JobRow.model, JobRow.pixels)
)
_RUNNING = (
    select(
        JobRow.sequence,
        JobRow.client,
        JobRow.model,
        JobRow.pixels,
        JobRow.images,
        JobRow.steps,
        JobRow.step,
    )
    .where(JobRow.status == JobStatus.RUNNING)
    .order_by(JobRow.sequence)
)

_latest = (
    select(JobRow.started_at, JobRow.finished_at)
    .order_by(JobRow.sequence.desc())
    .limit(LATEST)
    .subquery()
)
_in_flight_lately = (
    select(func.count())
    .select_from(_latest)
    .where(
        _latest.c.started_at <= bindparam("lately"),
        or_(_latest.c.finished_at.is_(None), _latest.c.finished_at > bindparam("lately")),
    )
)
_WORKERS = select(
    func.count(), func.sum(WorkerRow.max_in_flight), _in_flight_lately.scalar_subquery()
).where(WorkerRow.lease_until > bindparam("now"), WorkerRow.draining.is_(False))

_rank = func.row_number().over(
    partition_by=JobRow.client, order_by=(JobRow.urgency, JobRow.sequence)
)
_ranked = (
    select(JobRow.sequence, (_rank - 1).label("rank"))
    .where(JobRow.status == JobStatus.QUEUED)
    .subquery()
)
_RANKED_JOBS = (
    select(
        JobRow.sequence,
        JobRow.client,
        _ranked.c.rank,
        JobRow.model,
        JobRow.pixels,
        JobRow.images,
        JobRow.steps,
    )
    .join(_ranked, _ranked.c.sequence == JobRow.sequence)
    .where(JobRow.sequence.in_(bindparam("wanted", expanding=True)))
)


@dataclass(frozen=True)
class RunningJob:
    """A job in flight."""

    sequence: int
    client: str
    work: Work


@dataclass(frozen=True)
class QueueSnapshot:
    """The queue at one moment. `fairness.order` describes the fields that are not listed here.

    Attributes:
        queued: the work of the queued jobs, by client.
        ahead: the number of a client's queued jobs that go before a new one, by client.
        running: the jobs in flight, the oldest first.
        lately: the number of jobs that were in flight a moment ago.
        workers: how many claim jobs, at least 1.
    """

    queues: Mapping[str, ClientQueue]
    queued: Mapping[str, Sequence[Work]]
    ahead: Mapping[str, int]
    running: Sequence[RunningJob]
    tickets: Mapping[str, int]
    places: int
    per_client: int
    speeds: Mapping[Kind, Speed]
    lately: int
    workers: int = 1

    @cached_property
    def pending(self) -> Counter[str]:
        """The number of unfinished jobs by client."""
        queued = Counter({client: queue.jobs for client, queue in self.queues.items()})
        return queued + Counter(job.client for job in self.running)

    @cached_property
    def latest_ticket(self) -> int:
        return max(self.tickets.values(), default=0)

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
            engines=self.workers,
        )

    def with_job(self, client: str, workload: Workload) -> tuple["QueueSnapshot", Estimate]:
        """The snapshot with one more job queued, and that job's position and ETA.

        Its rank among the client's jobs is as for the urgency given to `read`.
        """
        steps = workload.steps
        work = Work(workload.model, workload.pixels, workload.images, steps, steps)
        queue, tickets = self.queues.get(client), self.tickets
        if queue is None:
            queue = ClientQueue(0, sys.maxsize)
            ticket = fairness.joining(tickets.get(client), self.latest_ticket)
            tickets = {**tickets, client: ticket}
        after = replace(
            self,
            queues={**self.queues, client: replace(queue, jobs=queue.jobs + 1)},
            queued={**self.queued, client: _with(work, self.queued.get(client, ()))},
            tickets=tickets,
        )
        job = client, self.ahead.get(client, 0)
        return after, after.estimates({job: work})[job]

    def estimates(self, wanted: Mapping[tuple[str, int], Work]) -> dict[tuple[str, int], Estimate]:
        """Positions and ETAs of queued jobs.

        Args:
            wanted: the work of each, by its client and its rank among that client's queued jobs,
                which begins at 0.
        """
        if len(self.queues) == 1:  # no other client can go in between
            return {
                (client, rank): Estimate(
                    rank, self.estimator.queued_end(work, {client: rank} if rank else {})
                )
                for (client, rank), work in wanted.items()
            }
        found: dict[tuple[str, int], Estimate] = {}
        ahead: Counter[str] = Counter()
        turns = fairness.order(
            self.queues,
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
            (name, 0): _mean(works[0])
            for name, works in self.queued.items()
            if client in (None, name)
        }
        ends += [estimate.eta_seconds for estimate in self.estimates(firsts).values()]
        return min((end for end in ends if end is not None), default=None)


def _with(new: Work, works: Sequence[Work]) -> list[Work]:
    """A client's work with one more job, summed by model and size as `read` sums it."""
    for index, work in enumerate(works):
        if (work.model, work.pixels) == (new.model, new.pixels):
            images, steps = work.images + new.images, work.steps + new.steps
            both = replace(
                work, images=images, steps=steps, total_steps=steps, jobs=work.jobs + new.jobs
            )
            return [*works[:index], both, *works[index + 1 :]]
    return [*works, new]


def _mean(work: Work) -> Work:
    """One job of mean size."""
    steps = work.steps / work.jobs
    return Work(work.model, work.pixels, work.images / work.jobs, steps, steps)


def read(session: Session, now: float, per_client: int | None, urgency: int = 0) -> QueueSnapshot:
    """Read the state of the queue. Takes about a millisecond, however many jobs are queued.

    Changes that the session has not flushed are not seen.

    Args:
        now: seconds since the epoch.
        per_client: the most jobs of one client that a worker has in flight; None is all.
        urgency: of the new job that `QueueSnapshot.ahead` is for.
    """
    execute = session.connection().execute  # takes a third less time than the session's
    queues: dict[str, ClientQueue] = {}
    queued: dict[str, list[Work]] = defaultdict(list)
    ahead: Counter[str] = Counter()
    for client, model, pixels, oldest, images, steps, jobs, before in execute(
        _QUEUED, {"urgency": urgency}
    ):
        known = queues.get(client, ClientQueue(0, oldest))
        queues[client] = ClientQueue(known.jobs + jobs, min(known.oldest, oldest))
        queued[client].append(Work(model, pixels, images, steps, steps, jobs))
        ahead[client] += before
    running = [
        RunningJob(sequence, client, Work(model, pixels, images, max(0, steps - step), steps))
        for sequence, client, model, pixels, images, steps, step in execute(_RUNNING)
    ]
    workers, places, lately = execute(_WORKERS, {"now": now, "lately": now - LATELY_S}).one()
    places = places or 1
    return QueueSnapshot(
        queues=queues,
        queued=queued,
        ahead=ahead,
        running=running,
        tickets=dict(execute(TICKETS).all()),
        places=places,
        per_client=places if per_client is None else per_client * max(1, workers),
        speeds={Kind(*row[:3]): Speed(*row[3:]) for row in execute(_SPEEDS)},
        lately=lately,
        workers=max(1, workers),
    )


def estimates(
    session: Session, now: float, per_client: int | None, wanted: Collection[int]
) -> dict[int, Estimate]:
    """Positions and ETAs of unfinished jobs, by number; see `read` for the arguments."""
    if not wanted:
        return {}
    queue = read(session, now, per_client)
    keys: dict[int, tuple[str, int]] = {}
    works: dict[tuple[str, int], Work] = {}
    for sequence, client, rank, model, pixels, images, steps in session.execute(
        _RANKED_JOBS, {"wanted": list(wanted)}
    ):
        keys[sequence] = client, rank
        works[client, rank] = Work(model, pixels, images, steps, steps)
    known = queue.estimates(works)
    found = {sequence: known[key] for sequence, key in keys.items()}
    for job, end in zip(queue.running, queue.estimator.running_ends(), strict=True):
        found[job.sequence] = Estimate(None, end)
    return {sequence: found.get(sequence, Estimate()) for sequence in wanted}
