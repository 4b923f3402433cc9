"""Events as the bytes of server-sent events, and one who listens to them."""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from darkroom.errors import DarkroomError
from darkroom.responses import Event, EventType
from darkroom.storage.records import Estimate

MAX_BACKLOG_BYTES = 2**20  # that may wait to be taken
NOTABLE_S, NOTABLE_PART = 2.0, 0.2  # an ETA is sent anew when it moves by one of them, or more
NOT_LOGGED = 0  # in place of an event's id

Key = TypeVar("Key")


@dataclass(frozen=True)
class Line:
    """An event as a server-sent event (HTML standard, section 9.2).

    Attributes:
        event: as the log has it, or `NOT_LOGGED`: then `Last-Event-ID` stays where it was.
        client: whose job that is; None if it is not known.
        data: the bytes.
    """

    event: Event
    client: str | None
    data: bytes


def line_of(event: Event, client: str | None = None) -> Line:
    """Render an event."""
    number = "" if event.id == NOT_LOGGED else f"id: {event.id}\n"
    data = json.dumps({"job_id": event.job_id, **event.data}, ensure_ascii=False)
    return Line(event, client, f"{number}event: {event.type}\ndata: {data}\n\n".encode())


def estimate_line(job_id: str, estimate: Estimate) -> Line:
    """Render a queued job's new estimate, which the log does not keep."""
    about = {"position": estimate.position, "eta_seconds": estimate.eta_seconds}
    return line_of(Event(id=NOT_LOGGED, job_id=job_id, type=EventType.QUEUED, data=about))


class Chunk:
    """Lines that are sent together, joined once for everyone who gets them."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = tuple(lines)

    @cached_property
    def data(self) -> bytes:
        return b"".join(line.data for line in self.lines)

    @cached_property
    def ends(self) -> bool:
        """Whether a job ends here."""
        return any(line.event.type.terminal for line in self.lines)

    def after(self, event_id: int) -> "Chunk":
        """The lines with a greater id than this, and those that are not logged."""
        fresh = [line for line in self.lines if not 0 < line.event.id <= event_id]
        return self if len(fresh) == len(self.lines) else Chunk(fresh)

    def by(self, key: Callable[[Line], Key]) -> dict[Key, "Chunk"]:
        """The lines of each key."""
        found: defaultdict[Key, list[Line]] = defaultdict(list)
        for line in self.lines:
            found[key(line)].append(line)
        return {name: Chunk(lines) for name, lines in found.items()}


class TooSlowError(DarkroomError, ConnectionError):
    """A listener does not keep up. It can come back with `Last-Event-ID`."""


class Listener:
    """What one open stream was sent, and what waits to be sent. Lives on the event loop.

    Attributes:
        job_id: listened to; None is all jobs.
        client: whose jobs' events may be seen; None is everybody's.
        over: whether nothing more is to be sent.
    """

    def __init__(self, job_id: str | None, client: str | None) -> None:
        self.job_id = job_id
        self.client = client
        self.over = False
        self._may_wait = job_id is not None  # whether the job is queued, by what was sent
        self._estimate: Estimate | None = None  # of the queued job, as it was sent last
        self._caught_up = False
        self._chunks: list[Chunk] = []
        self._bytes = 0
        self._news = asyncio.Event()

    def push(self, chunk: Chunk) -> None:
        """Add something to send once the listener is woken."""
        self._bytes += len(chunk.data)
        if self._bytes > MAX_BACKLOG_BYTES:
            self._chunks.clear()
        else:
            self._chunks.append(chunk)

    def wake(self) -> None:
        self._news.set()

    def leave(self) -> None:
        self.over = True
        self.wake()

    async def take(self, until: float | None = None) -> list[Chunk]:
        """Wait for something to send; maybe nothing, if it is over or too late.

        Args:
            until: a time of the event loop; None waits as long as it takes.

        Raises:
            TooSlowError: more than `MAX_BACKLOG_BYTES` waited.
        """
        self._caught_up = True
        if not (self._bytes or self.over):
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._news.wait()
        if self._bytes > MAX_BACKLOG_BYTES:
            raise TooSlowError
        taken, self._chunks, self._bytes = self._chunks, [], 0
        return taken

    def note_sent(self, chunk: Chunk) -> None:
        """Remember what was sent."""
        for event in (line.event for line in chunk.lines):
            if event.type is EventType.QUEUED:
                self._may_wait = self.job_id is not None
                self._estimate = Estimate(event.data["position"], event.data["eta_seconds"])
            elif event.type is not EventType.NOTE:
                self._may_wait, self._estimate = False, None

    def waits(self) -> bool:
        """Whether all there is was sent, and by that the job is queued."""
        return self._may_wait and self._caught_up and not self._chunks and not self.over

    def offer(self, estimate: Estimate | None) -> None:
        """Send the job's estimate if it has changed; None if the job is not queued."""
        if not self.waits() or self.job_id is None:
            return
        if estimate is None:
            self._may_wait = False
        elif self._estimate is None or differs(estimate, self._estimate):
            self.push(Chunk([estimate_line(self.job_id, estimate)]))
            self.wake()


def differs(new: Estimate, old: Estimate) -> bool:
    """Whether two estimates differ by enough to be sent."""
    if new.position != old.position or new.eta_seconds is None or old.eta_seconds is None:
        return new != old
    change_s = abs(new.eta_seconds - old.eta_seconds)
    return change_s > min(NOTABLE_S, NOTABLE_PART * old.eta_seconds)
