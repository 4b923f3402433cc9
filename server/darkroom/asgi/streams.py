"""Everyone who listens to events or waits for a job's end, on the event loop.

Listening takes no thread. What came together in the event log is one batch: each event is rendered
once, what several listeners get is joined once, and the loop is woken once for all of them.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager

import structlog

from darkroom.asgi.events import NOT_LOGGED, Chunk, Listener, line_of
from darkroom.asgi.limits import Threads
from darkroom.asgi.wait import EventStream
from darkroom.queue.store import Store
from darkroom.responses import Event

log = structlog.get_logger()

RETRY = b"retry: 1000\n\n"
HEARTBEAT = b": still here\n\n"
PAGE = 200
ESTIMATES_EVERY_S = 2.0
WOKEN_AT_ONCE = 32  # so that other work does not wait for hundreds of writes
MAX_OWNERS = 4096


class Streams:
    """The listeners of this process.

    Its methods run on the event loop, but `publish`, which one other thread calls, and `open`.

    Args:
        store: to replay from.
        heartbeat_s: between two heartbeats.
        page: events read from the log at once.
    """

    def __init__(self, store: Store, heartbeat_s: float, page: int = PAGE) -> None:
        self._store = store
        self._heartbeat_s = heartbeat_s
        self._page_events = page
        self._owners: dict[str, str] = {}  # the clients of jobs, which never change
        self._listeners: set[Listener] = set()
        self._endings: dict[asyncio.Future[None], str] = {}  # done when the job ends
        self._asleep: deque[Listener] = deque()  # that got something, and are to be woken
        self._stopped = False

    @property
    def open(self) -> int:
        """How many streams are open."""
        return len(self._listeners)

    async def send_estimates(self, threads: Threads) -> None:
        """Send new estimates to listeners of queued jobs, until cancelled."""
        while True:
            await asyncio.sleep(ESTIMATES_EVERY_S)
            waiting = [listener for listener in self._listeners if listener.waits()]
            job_ids = {listener.job_id for listener in waiting if listener.job_id is not None}
            if not job_ids:
                continue
            try:
                estimates = await threads.run(self._store.estimates, job_ids)
                for listener in waiting:
                    listener.offer(estimates.get(listener.job_id or ""))
            except Exception:
                log.exception("the queue cannot be read")

    def stop(self) -> None:
        """End all streams and all waiting, those still to come too."""
        self._stopped = True
        for listener in self._listeners:
            listener.leave()
        self._end(set(self._endings.values()))

    # --- what happens ----------------------------------------------------------------------

    def publish(self, events: Sequence[Event], loop: asyncio.AbstractEventLoop) -> None:
        """Hand events to those who listen.

        Without any listener nothing is lost: each reads the log, which has the events by now,
        after it has begun to listen.
        """
        if not self._listeners and not self._endings:
            return
        if len(self._owners) > MAX_OWNERS:
            self._owners.clear()
        missing = {event.job_id for event in events} - self._owners.keys()
        if missing and self._listeners:
            self._owners |= self._store.owners(missing)
        batch = Chunk([line_of(event, self._owners.get(event.job_id)) for event in events])
        with contextlib.suppress(RuntimeError):  # the loop has ended, and all listeners with it
            loop.call_soon_threadsafe(self._deliver, batch)

    def _deliver(self, batch: Chunk) -> None:
        waking = bool(self._asleep)
        by_job = batch.by(lambda line: line.event.job_id)
        by_client = batch.by(lambda line: line.client)
        for listener in self._listeners:
            if listener.job_id is not None:
                seen = by_job.get(listener.job_id)
            else:
                seen = batch if listener.client is None else by_client.get(listener.client)
            if seen is not None:
                listener.push(seen)
                self._asleep.append(listener)
        self._end({job_id for job_id, chunk in by_job.items() if chunk.ends})
        if not waking:
            self._wake_some()

    def _wake_some(self) -> None:
        for _ in range(min(WOKEN_AT_ONCE, len(self._asleep))):
            self._asleep.popleft().wake()
        if self._asleep:
            asyncio.get_running_loop().call_soon(self._wake_some)

    def _end(self, job_ids: set[str]) -> None:
        for ended, job_id in self._endings.items():
            if job_id in job_ids and not ended.done():
                ended.set_result(None)

    # --- waiting and listening -------------------------------------------------------------

    @contextmanager
    def ending(self, job_id: str) -> Iterator[asyncio.Future[None]]:
        """A future that is done once the job ends after this was entered, or the server stops."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._stopped:
            ended.set_result(None)
        self._endings[ended] = job_id
        try:
            yield ended
        finally:
            del self._endings[ended]

    async def play(
        self, wanted: EventStream, threads: Threads, gone: asyncio.Future[None]
    ) -> AsyncGenerator[bytes, None]:
        """A stream's bytes: first what the log has, then what comes, each event once.

        Args:
            wanted: what is listened to.
            threads: to read the log in.
            gone: done when the caller has left.

        Raises:
            TooSlowError: the bytes are taken too slowly.
        """
        now = asyncio.get_running_loop().time
        with self._listening(wanted) as listener:
            gone.add_done_callback(lambda _: listener.leave())
            if wanted.encoder is None:  # clients of other APIs cannot come back, and read no hint
                yield RETRY
            after, more = wanted.after, True
            while more and not listener.over:
                page = await threads.run(self._read_log, wanted, after)
                more = len(page.lines) == self._page_events
                if page.lines:
                    after = page.lines[-1].event.id
                    if data := await _encode([page], wanted, threads, listener):
                        yield data
                if wanted.job_id is not None and page.ends:
                    return
            beat_at = now() + self._heartbeat_s
            while True:
                chunks = [chunk.after(after) for chunk in await listener.take(beat_at)]
                if listener.over:
                    if wanted.encoder is not None:
                        yield await threads.run(wanted.encoder.encode_stop)
                    return
                if data := await _encode(chunks, wanted, threads, listener):
                    yield data
                if wanted.job_id is not None and any(chunk.ends for chunk in chunks):
                    return
                if now() >= beat_at:
                    if wanted.allowed is not None and not await threads.run(wanted.allowed):
                        return
                    yield HEARTBEAT
                    beat_at = now() + self._heartbeat_s

    @contextmanager
    def _listening(self, wanted: EventStream) -> Iterator[Listener]:
        listener = Listener(wanted.job_id, wanted.client)
        self._listeners.add(listener)
        if self._stopped:
            listener.leave()
        try:
            yield listener
        finally:
            listener.leave()
            self._listeners.discard(listener)

    def _read_log(self, wanted: EventStream, after: int) -> Chunk:
        """The next page of what a listener may see. Runs in a thread."""
        events = self._store.events_after(after, wanted.job_id, self._page_events, wanted.client)
        return Chunk([line_of(event) for event in events])


async def _encode(
    chunks: Sequence[Chunk], wanted: EventStream, threads: Threads, listener: Listener
) -> bytes:
    """The bytes that a listener is sent now."""
    for chunk in chunks:
        listener.note_sent(chunk)
    if wanted.encoder is None:
        return b"".join(chunk.data for chunk in chunks)
    events = [line.event for chunk in chunks for line in chunk.lines]
    logged = [event for event in events if event.id != NOT_LOGGED]
    return await threads.run(wanted.encoder.encode, logged) if logged else b""
