"""Everyone who listens to events or waits for a job's end, on the event loop.

Listening takes no thread. What came together in the event log is one batch: each event is rendered
once, what several listeners get is joined once, and the loop is woken once for all of them.
"""

import asyncio
import contextlib
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import TypeVar

import structlog

from darkroom.asgi.events import Batch, Chunk, Listener, line_of
from darkroom.asgi.limits import Threads
from darkroom.asgi.wait import EventStream
from darkroom.queue.store import Store
from darkroom.responses import Event

log = structlog.get_logger()

Item = TypeVar("Item")

RETRY = b"retry: 1000\n\n"
HEARTBEAT = b": still here\n\n"
PAGE = 200
ESTIMATES_EVERY_S = 2.0
WOKEN_AT_ONCE = 32  # so that other work does not wait for hundreds of writes
MAX_OWNERS = 4096


class Owners:
    """The clients of jobs, which never change. Any thread may ask.

    Args:
        store: has them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: OrderedDict[str, str] = OrderedDict()

    def of(self, job_ids: Set[str]) -> dict[str, str]:
        """The client of each job; jobs that do not exist any more are left out."""
        with self._lock:
            found = {job_id: self._known[job_id] for job_id in job_ids & self._known.keys()}
        missing = set(job_ids - found.keys())
        if missing:
            asked = self._store.owners(missing)
            found |= asked
            with self._lock:
                self._known |= asked
                while len(self._known) > MAX_OWNERS:
                    self._known.popitem(last=False)
        return found


class Streams:
    """The listeners of this process.

    Its methods run on the event loop, but `publish` and `open`, which any thread may call.

    Args:
        store: to replay from.
        heartbeat_s: between two heartbeats.
        page: events read from the log at once.
    """

    def __init__(self, store: Store, heartbeat_s: float, page: int = PAGE) -> None:
        self._store = store
        self._heartbeat_s = heartbeat_s
        self._page_events = page
        self._owners = Owners(store)
        self._listeners: set[Listener] = set()
        self._of_job: dict[str, set[Listener]] = {}
        self._endings: dict[str, set[asyncio.Future[None]]] = {}
        self._asleep: deque[Listener] = deque()  # that got something, and are to be woken
        self._stopped = False

    @property
    def open(self) -> int:
        """How many streams are open."""
        return len(self._listeners)

    async def run(self, threads: Threads) -> None:
        """Send new estimates to listeners of queued jobs, until cancelled."""
        while True:
            await asyncio.sleep(ESTIMATES_EVERY_S)
            try:
                await self._send_estimates(threads)
            except Exception:
                log.exception("the queue cannot be read")

    async def _send_estimates(self, threads: Threads) -> None:
        waiting = [listener for listener in self._listeners if listener.waits()]
        job_ids = {listener.job_id for listener in waiting if listener.job_id is not None}
        if job_ids:
            estimates = await threads.run(self._store.estimates, job_ids)
            for listener in waiting:
                listener.offer(estimates.get(listener.job_id or ""))

    def stop(self) -> None:
        """End all streams and all waiting, those still to come too."""
        self._stopped = True
        for listener in self._listeners:
            listener.leave()
        for job_id in tuple(self._endings):
            self._end(job_id)

    # --- what happens ----------------------------------------------------------------------

    def publish(self, events: Sequence[Event], loop: asyncio.AbstractEventLoop) -> None:
        """Hand events to those who listen.

        Without any listener nothing is lost: each reads the log, which has the events by now,
        after it has begun to listen.
        """
        if not self._listeners and not self._endings:
            return
        owners = self._owners.of({event.job_id for event in events})
        batch = Batch([line_of(event, owners.get(event.job_id)) for event in events])
        with contextlib.suppress(RuntimeError):  # the loop has ended, and all listeners with it
            loop.call_soon_threadsafe(self._deliver, batch)

    def _deliver(self, batch: Batch) -> None:
        waking = bool(self._asleep)
        for job_id, chunk in batch.by_job().items():
            for listener in self._of_job.get(job_id, ()):
                self._give(listener, chunk)
            if chunk.ends:
                self._end(job_id)
        by_client = batch.by_client()
        for listener in self._listeners:
            if listener.job_id is None:
                seen = batch if listener.client is None else by_client.get(listener.client)
                if seen is not None:
                    self._give(listener, seen)
        if not waking:
            self._wake_some()

    def _give(self, listener: Listener, chunk: Chunk) -> None:
        listener.push(chunk)
        self._asleep.append(listener)

    def _wake_some(self) -> None:
        for _ in range(min(WOKEN_AT_ONCE, len(self._asleep))):
            self._asleep.popleft().wake()
        if self._asleep:
            asyncio.get_running_loop().call_soon(self._wake_some)

    def _end(self, job_id: str) -> None:
        for ended in self._endings.pop(job_id, ()):
            if not ended.done():
                ended.set_result(None)

    # --- waiting and listening -------------------------------------------------------------

    @contextmanager
    def ending(self, job_id: str) -> Iterator["asyncio.Future[None]"]:
        """A future that is done once the job ends after this was entered, or the server stops."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._stopped:
            ended.set_result(None)
        self._endings.setdefault(job_id, set()).add(ended)
        try:
            yield ended
        finally:
            _discard(self._endings, job_id, ended)

    async def play(
        self, wanted: EventStream, threads: Threads, gone: "asyncio.Future[None]"
    ) -> AsyncGenerator[bytes, None]:
        """A stream's bytes: first what the log has, then what comes, each event once.

        Args:
            wanted: what is listened to.
            threads: to read the log in.
            gone: done when the caller has left.

        Raises:
            TooSlowError: the bytes are taken too slowly.
        """
        with self._listening(wanted) as listener:
            gone.add_done_callback(lambda _: listener.leave())
            if wanted.encoder is None:  # clients of other APIs cannot come back, and read no hint
                yield RETRY
            after, more = wanted.after, True
            while more and not listener.over:
                chunk, after, more = await threads.run(self._read_log, wanted, after)
                if chunk.lines:
                    listener.note_sent(chunk.lines)
                    if data := await _encode(wanted, threads, chunk):
                        yield data
                if wanted.job_id is not None and chunk.ends:
                    return
            listener.beat_after(self._heartbeat_s)
            async for data in self._live(wanted, threads, listener, after):
                yield data

    async def _live(
        self, wanted: EventStream, threads: Threads, listener: Listener, after: int
    ) -> AsyncIterator[bytes]:
        while True:
            chunks = [chunk.after(after) for chunk in await listener.take()]
            if listener.over:
                if wanted.encoder is not None:
                    yield await threads.run(wanted.encoder.encode_stop)
                return
            for chunk in chunks:
                listener.note_sent(chunk.lines)
            if data := b"".join([await _encode(wanted, threads, chunk) for chunk in chunks]):
                yield data
            if wanted.job_id is not None and any(chunk.ends for chunk in chunks):
                return
            if listener.beats:
                if wanted.allowed is not None and not await threads.run(wanted.allowed):
                    return
                yield HEARTBEAT
                listener.beat_after(self._heartbeat_s)

    @contextmanager
    def _listening(self, wanted: EventStream) -> Iterator[Listener]:
        listener = Listener(wanted.job_id, wanted.client)
        self._listeners.add(listener)
        if wanted.job_id is not None:
            self._of_job.setdefault(wanted.job_id, set()).add(listener)
        if self._stopped:
            listener.leave()
        try:
            yield listener
        finally:
            listener.leave()
            self._listeners.discard(listener)
            if wanted.job_id is not None:
                _discard(self._of_job, wanted.job_id, listener)

    def _read_log(self, wanted: EventStream, after: int) -> tuple[Chunk, int, bool]:
        """What a listener may see of the next page, the page's last id, and whether more follows.

        Runs in a thread.
        """
        events = self._store.events_after(after, wanted.job_id, self._page_events)
        last_id = events[-1].id if events else after
        more = len(events) == self._page_events
        if wanted.job_id is None and wanted.client is not None:
            owners = self._owners.of({event.job_id for event in events})
            events = [event for event in events if owners.get(event.job_id) == wanted.client]
        return Chunk([line_of(event, None) for event in events]), last_id, more


async def _encode(wanted: EventStream, threads: Threads, chunk: Chunk) -> bytes:
    if wanted.encoder is None:
        return chunk.data
    events = [line.event for line in chunk.lines if line.event is not None]
    return await threads.run(wanted.encoder.encode, events)


def _discard(groups: dict[str, set[Item]], key: str, item: Item) -> None:
    """Take an item out of its group, and remove the group when it is empty."""
    group = groups.get(key, set())
    group.discard(item)
    if not group:
        groups.pop(key, None)
