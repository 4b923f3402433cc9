"""Writes the progress and results of a worker, also while the database cannot be used."""

import threading
from collections.abc import Callable

import structlog

from darkroom.queue.leases import Leases
from darkroom.responses import EventType
from darkroom.storage.database import DatabaseUnavailableError
from darkroom.storage.records import NewEvent

log = structlog.get_logger()

RETRY_S = 1.0  # between attempts to write a result
MAX_PENDING_EVENTS = 2000  # kept in memory while the database cannot be used


class ProgressWriter:
    """Collects progress, and writes it in batches.

    Args:
        leases: to write through.
        ring_web: called when progress was written.
        pulse: called before every attempt to write a result.
        stopping: set when the worker has to stop.

    Attributes:
        steps: by job, the steps done and the total, not yet written.
    """

    def __init__(
        self,
        leases: Leases,
        ring_web: Callable[[], None],
        pulse: Callable[[], None],
        stopping: threading.Event,
    ) -> None:
        self._leases = leases
        self._ring_web = ring_web
        self._pulse = pulse
        self._stopping = stopping
        self._events: list[NewEvent] = []
        self.steps: dict[str, tuple[int, int]] = {}

    def append(self, job_id: str, kind: EventType, data: dict[str, object]) -> None:
        """Add an event to the next batch."""
        self._events.append(NewEvent(job_id, kind, data))

    def flush(self) -> None:
        """Write what was collected; what cannot be written is kept for the next call."""
        if not self._events and not self.steps:
            return
        try:
            self._leases.record(self._events, self.steps)
        except DatabaseUnavailableError as error:
            log.warning("progress cannot be written", reason=str(error))
            self._events = self._events[-MAX_PENDING_EVENTS:]
        else:
            self._events, self.steps = [], {}
            self._ring_web()

    def persist(self, write: Callable[[], None]) -> None:
        """Call `write` again and again until the database can be used.

        Raises:
            DatabaseUnavailableError: the worker has to stop before that.
            LeaseLostError: raised by `write`.
        """
        while True:
            self._pulse()
            try:
                return write()
            except DatabaseUnavailableError as error:
                log.warning("a result cannot be written yet", reason=str(error))
                if self._stopping.wait(RETRY_S):
                    raise
