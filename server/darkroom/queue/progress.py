"""Progress of running jobs, written in batches: losing some costs nobody a picture."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

import structlog

from darkroom.queue.leases import Leases
from darkroom.storage.database import DatabaseUnavailableError
from darkroom.storage.records import NewEvent

log = structlog.get_logger()

MAX_PENDING_EVENTS = 2000  # kept in memory while the database cannot be used


@dataclass(eq=False)
class Progress:
    """Events and steps that are not written yet.

    Attributes:
        ring_web: called when some were written.
        every_s: the time between two writes.
        clock: seconds, monotonic.
    """

    leases: Leases
    _: KW_ONLY
    ring_web: Callable[[], None]
    every_s: float
    clock: Callable[[], float]
    _events: list[NewEvent] = field(default_factory=list, init=False)
    _steps: dict[str, tuple[int, int]] = field(default_factory=dict, init=False)
    _flushed_at: float = field(default=float("-inf"), init=False)

    def add(self, event: NewEvent) -> None:
        """Have an event written with the next batch."""
        self._events.append(event)

    def step(self, job_id: str, step: int, steps: int) -> None:
        """Have the steps that a job has done, of so many, written with the next batch."""
        self._steps[job_id] = (step, steps)

    def flush_if_due(self) -> None:
        """Write if the last time was `every_s` ago."""
        if self.clock() - self._flushed_at >= self.every_s:
            self.flush()

    def flush(self) -> None:
        """Write now; what cannot be written is kept for the next call."""
        self._flushed_at = self.clock()
        if not self._events and not self._steps:
            return
        try:
            self.leases.record(self._events, self._steps)
        except DatabaseUnavailableError as error:
            log.warning("progress cannot be written", reason=str(error))
            self._events = self._events[-MAX_PENDING_EVENTS:]
        else:
            self._events, self._steps = [], {}
            self.ring_web()
