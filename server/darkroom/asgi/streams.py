"""Everybody who listens to events or waits for a job's end, on the event loop.

Listening takes no thread. What came together in the event log is one batch: each event is rendered
once, what several listeners get is joined once, and the loop is woken once for all of them.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import structlog

from darkroom.asgi.job_owners import Owners
from darkroom.asgi.listener import Listener
from darkroom.asgi.sse import Batch, Chunk, line_of
from darkroom.asgi.threads import Threads
from darkroom.asgi.wait import EventStream
from darkroom.queue.store import Store
from darkroom.responses import Event

log = structlog.get_logger()

Item = TypeVar("Item")

RETRY = b"retry: 1000\n\n"
HEARTBEAT = b": still here\n\n"
PAGE = 200
OUTLOOKS_EVERY_S = 2.0
WOKEN_AT_ONCE = 32  # so that what else there is to do does not wait for hundreds of writes


@dataclass(frozen=True)
class Page:
    """A part of the log.

    Attributes:
        piece: what the listener may see of it.
        last_id: where it ends.
        more: whether there may be more.
    """

    piece: Chunk
    last_id: int
    more: bool


class Streams:
    """The listeners of this process.

    Its methods run on the event loop, but `hear` and `open`, which any thread may call.

    Args:
        store: to replay from.
        heartbeat_s: between signs of life.
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
        self._asleep: deque[Listener] = deque()  # who got something, and is to be woken
        self._stopped = False

    @property
    def open(self) -> int:
        """How many streams are open."""
        return len(self._listeners)

    async def run(self, threads: Threads) -> None:
        """Keep those who wait for their turn up to date, until cancelled."""
        while True:
            await asyncio.sleep(OUTLOOKS_EVERY_S)
            try:
                await self._tell_outlooks(threads)
            except Exception:
                log.exception("the queue cannot be read")

    async def _tell_outlooks(self, threads: Threads) -> None:
        waiting = [listener for listener in self._listeners if listener.waits()]
        job_ids = {listener.job_id for listener in waiting if listener.job_id is not None}
        if job_ids:
            estimates = await threads.run(self._store.estimates, job_ids)
            for listener in waiting:
                listener.foresee(estimates.get(listener.job_id or ""))

    def stop(self) -> None:
        """End all streams and all waiting, those still to come too."""
        self._stopped = True
        for listener in self._listeners:
            listener.leave()
        for job_id in tuple(self._endings):
            self._end(job_id)

    # --- what happens ----------------------------------------------------------------------

    def hear(self, events: Sequence[Event], loop: asyncio.AbstractEventLoop) -> None:
        """Pass on what happened.

        Nobody listening means nobody misses it: everyone looks into the log, where it is by now,
        after beginning to listen.
        """
        if not self._listeners and not self._endings:
            return
        owners = self._owners.of({event.job_id for event in events})
        batch = Batch([line_of(event, owners.get(event.job_id)) for event in events])
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it all who listened
            loop.call_soon_threadsafe(self._deliver, batch)

    def _deliver(self, batch: Batch) -> None:
        waking = bool(self._asleep)
        for job_id, piece in batch.by_job().items():
            for listener in self._of_job.get(job_id, ()):
                self._give(listener, piece)
            if piece.ends:
                self._end(job_id)
        by_client = batch.by_client()
        for listener in self._listeners:
            if listener.job_id is None:
                seen = batch if listener.client is None else by_client.get(listener.client)
                if seen is not None:
                    self._give(listener, seen)
        if not waking:
            self._wake_some()

    def _give(self, listener: Listener, piece: Chunk) -> None:
        listener.push(piece)
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

    # --- who waits and who listens ---------------------------------------------------------

    @contextmanager
    def ending(self, job_id: str) -> Iterator["asyncio.Future[None]"]:
        """Done once the job ends after this was entered, or the server stops."""
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
            gone: done when nobody listens any more.

        Raises:
            TooSlowError: the bytes are taken too slowly.
        """
        with self._listening(wanted) as listener:
            gone.add_done_callback(lambda _: listener.leave())
            if wanted.encoder is None:  # others' clients cannot come back, and trip over the hint
                yield RETRY
            page = Page(Chunk([]), wanted.after, more=True)
            while page.more and not listener.over:
                page = await threads.run(self._page, wanted, page.last_id)
                if page.piece.lines:
                    listener.sent(page.piece.lines)
                    if data := await _told(wanted, threads, page.piece):
                        yield data
                if wanted.job_id is not None and page.piece.ends:
                    return
            listener.beat_after(self._heartbeat_s)
            async for piece in self._live(wanted, threads, listener, page.last_id):
                yield piece

    async def _live(
        self, wanted: EventStream, threads: Threads, listener: Listener, after: int
    ) -> AsyncIterator[bytes]:
        while True:
            pieces = [piece.after(after) for piece in await listener.take()]
            if listener.over:
                if wanted.encoder is not None:
                    yield await threads.run(wanted.encoder.break_off)
                return
            for piece in pieces:
                listener.sent(piece.lines)
            if data := b"".join([await _told(wanted, threads, piece) for piece in pieces]):
                yield data
            if wanted.job_id is not None and any(piece.ends for piece in pieces):
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

    def _page(self, wanted: EventStream, after: int) -> Page:
        """Runs in a thread."""
        events = self._store.events_after(after, wanted.job_id, self._page_events)
        last_id = events[-1].id if events else after
        more = len(events) == self._page_events
        if wanted.job_id is None and wanted.client is not None:
            owners = self._owners.of({event.job_id for event in events})
            events = [event for event in events if owners.get(event.job_id) == wanted.client]
        return Page(Chunk([line_of(event, None) for event in events]), last_id, more)


async def _told(wanted: EventStream, threads: Threads, piece: Chunk) -> bytes:
    if wanted.encoder is None:
        return piece.data
    events = [line.event for line in piece.lines if line.event is not None]
    return await threads.run(wanted.encoder.tell, events)


def _discard(groups: dict[str, set[Item]], key: str, item: Item) -> None:
    """Take an item out of its group, and the group away when it is empty."""
    group = groups.get(key, set())
    group.discard(item)
    if not group:
        groups.pop(key, None)
