"""Which jobs the callers of this process wait for, and the end of those that nobody wants."""

import threading
from dataclasses import dataclass, field

import structlog

from darkroom.queue.store import Store
from darkroom.responses import Job
from darkroom.storage.records import NewJob

log = structlog.get_logger()

HOLD = "darkroom.hold"  # in the environment of a request: its `Hold`
LOOKS = 4  # for unwanted jobs, in the time that they have


@dataclass(eq=False)
class Hold:
    """The jobs that a request has made or joined.

    Attributes:
        job_ids: written by `Callers` only.
        ended: whether the request was answered or its caller has left. Set on the event loop,
            which must not wait.
    """

    job_ids: list[str] = field(default_factory=list)
    ended: bool = False


class Callers:
    """The requests that hold jobs, from when they made or joined them to their end.

    A request joins a job, and another one leaves it for good, under one lock. So a retry that
    comes at the last moment finds a job that goes on, or makes a new one. Safe to use from any
    thread; the methods may wait for the database.

    Args:
        store: of the jobs.
        abandoned_s: how long a job that is only for its caller goes on without one; 0 is for ever.
    """

    def __init__(self, store: Store, abandoned_s: float) -> None:
        self._store = store
        self._abandoned_s = abandoned_s
        self._lock = threading.Lock()
        self._holds: set[Hold] = set()
        self._left: set[str] = set()  # jobs of holds that have ended since the last look
        self._has_looked = False

    def accept(self, new: NewJob, hold: Hold) -> tuple[Job, bool]:
        """Put a job in the queue or join one, as `Store.accept`, and hold it."""
        with self._lock:
            job, fresh = self._store.accept(new, self._held())
            hold.job_ids.append(job.id)
            self._holds.add(hold)
        return job, fresh

    def cancel(self, job_id: str, hold: Hold, client: str | None) -> None:
        """Leave a job, and cancel it if nobody else holds it; see `Store.cancel`."""
        with self._lock:
            hold.job_ids.remove(job_id)
            if job_id not in self._held():
                self._store.cancel(job_id, client, frees_key=True)

    def end_unwanted(self) -> int:
        """Cancel the jobs whose callers left too long ago, and return how many there were.

        Callers of the process before this one have left: their connections ended with it. They
        had no time to come back yet, so theirs begins at the first look.
        """
        with self._lock:
            held, left = self._held(), frozenset(self._left)
        if not self._has_looked:
            self._store.keep_wanted(self._abandoned_s)
            self._has_looked = True
        ended = self._store.end_unwanted(held, left, self._abandoned_s)
        with self._lock:
            self._left -= left
        if ended:
            log.info("jobs were cancelled, because their callers left", jobs=ended)
        return ended

    def _held(self) -> set[str]:
        """The jobs that are held. Needs the lock."""
        over = {hold for hold in self._holds if hold.ended}
        self._holds -= over
        if self._abandoned_s:
            self._left.update(job_id for hold in over for job_id in hold.job_ids)
        return {job_id for hold in self._holds for job_id in hold.job_ids}
