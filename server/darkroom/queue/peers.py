"""The other workers of a queue: which of them had better have a job than this one.

What a model takes to load is as much as many jobs. So a job whose model is not in memory here is
*left*, for at most `affinity_s`, while another worker has the model in memory and is idle. Of two
that have it in memory the one with fewer jobs goes first: it has a moment to come. A job that was
in flight when a worker died is left to workers on the same kind of device, where its picture is the
same, as long as there are any.
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from darkroom.catalog import published
from darkroom.queue.affinity import Candidate
from darkroom.responses import JobStatus
from darkroom.storage.tables import JobRow, WorkerRow

MAX_LEFT = 1000  # jobs whose time is remembered
COMES_S = 1.0  # a worker with fewer jobs looks at the queue by then
READ_EVERY_S = 0.5  # where there are others


def kind_of(device: str) -> str:
    """The kind of a device: `cuda` of `cuda:1`."""
    return device.partition(":")[0]


@dataclass(frozen=True)
class Peer:
    """Another live worker that claims jobs. `resident` are the models in its memory."""

    lease: str
    kind: str
    folder: str
    resident: frozenset[str]


@dataclass(eq=False)
class Peers:
    """The other workers, as they were when they were last read.

    Attributes:
        lease: of this worker.
        device: of this worker.
        affinity_s: how long a job is left for an idle worker that has its model in memory.
        clock: seconds since the epoch.
        monotonic: seconds on a clock that cannot be set.
    """

    lease: str
    device: str
    affinity_s: float
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _known: tuple[Peer, ...] = field(default=(), init=False)
    _alive: bool = field(default=False, init=False)  # one of them, whether it claims jobs or not
    _read_at: float = field(default=float("-inf"), init=False)
    _left: OrderedDict[int, float] = field(default_factory=OrderedDict, init=False)

    def __bool__(self) -> bool:
        return bool(self._known)

    def read(self, session: Session) -> None:
        """Read who they are."""
        columns = (WorkerRow.lease, WorkerRow.device, WorkerRow.folder, WorkerRow.memory)
        claims = and_(WorkerRow.ready, WorkerRow.draining.is_(False)).label("claims")
        others = (WorkerRow.lease != self.lease, WorkerRow.lease_until > self.clock())
        found = session.execute(select(*columns, claims).where(*others)).all()
        self._alive, self._read_at = bool(found), self.monotonic()
        self._known = tuple(
            Peer(lease, kind_of(device), folder, frozenset(json.loads(memory).get("resident", ())))
            for lease, device, folder, memory, claims in found
            if claims
        )

    def read_again(self, session: Session) -> None:
        """Read who they are, if there are any, and it was not done just now.

        A heartbeat reads them too, but between two of those one may be ready, or told to drain.
        """
        if self._alive and self.monotonic() - self._read_at >= READ_EVERY_S:
            self.read(session)

    def should_have(self, session: Session, job: Candidate, here: Collection[str]) -> bool:
        """Whether a job is left to one of them now.

        Args:
            here: the models that are in memory here, or are about to be.
        """
        if job.isolated:
            return self._is_of_their_kind(session, job)
        having = [peer.lease for peer in self._known if job.model in peer.resident]
        if not having:
            return False
        jobs = in_flight(session)
        fewest = min(jobs.get(lease, 0) for lease in having)
        if job.model in here:
            is_left, limit_s = fewest < jobs.get(self.lease, 0), COMES_S
        else:
            is_left, limit_s = fewest == 0, self.affinity_s
        if not is_left:
            return False
        now = self.monotonic()
        since = self._left.setdefault(job.sequence, now)
        if len(self._left) > MAX_LEFT:
            self._left.popitem(last=False)
        return now - since < limit_s

    def _is_of_their_kind(self, session: Session, job: Candidate) -> bool:
        wanted = session.scalar(select(JobRow.device).where(JobRow.sequence == job.sequence))
        if not wanted or kind_of(wanted) == kind_of(self.device):
            return False
        same = [peer.lease for peer in self._known if peer.kind == kind_of(wanted)]
        catalogs = select(WorkerRow.catalog).where(WorkerRow.lease.in_(same))
        return any(
            published.may_have(catalog, job.model, job.loras)
            for catalog in session.scalars(catalogs)
        )


def in_flight(session: Session) -> dict[str, int]:
    """How many jobs each process has in flight, by its lease."""
    rows = session.execute(
        select(JobRow.lease, func.count())
        .where(JobRow.status == JobStatus.RUNNING)
        .group_by(JobRow.lease)
    )
    return {lease: jobs for lease, jobs in rows if lease is not None}
