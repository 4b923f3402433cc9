"""One thread reads the event log and hands every event to whoever waits for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import structlog

from darkroom.jobs.doorbell import Doorbell
from darkroom.jobs.store import Store
from darkroom.schemas import Event

log = structlog.get_logger()


class Subscription:
    """Events from the moment of subscribing on. `queue` yields them in order."""

    def __init__(self, job_id: str | None) -> None:
        self.job_id = job_id
        self.queue: SimpleQueue[Event] = SimpleQueue()


class Tail:
    """Follows the event log.

    Args:
        store: to read from.
        bell: rings when something was written.
        poll_s: how often to look when it does not ring.
    """

    def __init__(self, store: Store, bell: Doorbell, poll_s: float) -> None:
        self._store = store
        self._bell = bell
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._subscriptions: set[Subscription] = set()
        self._stopping = threading.Event()
        self._last_id = store.last_event_id()
        self._thread = threading.Thread(target=self._follow, name="event tail", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    @contextmanager
    def subscribe(self, job_id: str | None) -> Iterator[Subscription]:
        """Listen to one job, or to all of them with None."""
        subscription = Subscription(job_id)
        with self._lock:
            self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            with self._lock:
                self._subscriptions.discard(subscription)

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
            self._last_id = events[-1].id
            with self._lock:
                listening = tuple(self._subscriptions)
            for event in events:
                for subscription in listening:
                    if subscription.job_id in (None, event.job_id):
                        subscription.queue.put(event)
