"""A thread that follows the event log."""

import threading
from collections.abc import Callable, Sequence

import structlog

from darkroom.queue.doorbell import Doorbell
from darkroom.queue.store import Store
from darkroom.responses import Event

log = structlog.get_logger()


class Tail:
    """Reads new events from the log, beginning with those after its creation.

    Args:
        store: to read from.
        bell: rings when events were written.
        poll_s: seconds between two reads without a ring.
        hear: called in this thread with new events, the oldest first, each once.
    """

    def __init__(
        self, store: Store, bell: Doorbell, poll_s: float, hear: Callable[[Sequence[Event]], None]
    ) -> None:
        self._store = store
        self._bell = bell
        self._poll_s = poll_s
        self._hear = hear
        self._stopping = threading.Event()
        self._last_id = store.last_event_id()
        self._thread = threading.Thread(target=self._follow, name="event tail", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop. `hear` is not called after this returns, which takes up to `poll_s`."""
        self._stopping.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            self._bell.wait(self._poll_s)
            try:
                self._read()
            except Exception:
                log.exception("event log cannot be read")
                self._stopping.wait(1.0)

    def _read(self) -> None:
        while events := self._store.events_after(self._last_id):
            self._hear(events)
            self._last_id = events[-1].id
