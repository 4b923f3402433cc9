"""Events as the bytes of server-sent events (HTML standard, section 9.2), and one who listens."""

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from darkroom.errors import DarkroomError
from darkroom.responses import Event, EventType
from darkroom.storage.records import Estimate

MAX_BACKLOG_BYTES = 2**20  # that may wait to be taken
NOTABLE_S, NOTABLE_PART = 2.0, 0.2  # an ETA is sent anew when it moves by one of them, or more


@dataclass(frozen=True)
class Line:
    """An event, rendered.

    Attributes:
        id: None for what is not in the log: `Last-Event-ID` stays where it was.
        job_id: of the job that it happened to.
        client: whose job that is, or None if it is not known any more.
        type: of the event.
        estimate: of a queued job.
        data: the bytes.
        event: as the log has it, or None as `id`.
    """

    id: int | None
    job_id: str
    client: str | None
    type: EventType
    estimate: Estimate | None
    data: bytes
    event: Event | None = None


def line_of(event: Event, client: str | None) -> Line:
    """Render an event of the log."""
    estimate = None
    if event.type is EventType.QUEUED:
        estimate = Estimate(event.data["position"], event.data["eta_seconds"])
    data = f"id: {event.id}\n{_render(event.type, event.job_id, event.data)}".encode()
    return Line(event.id, event.job_id, client, event.type, estimate, data, event)


def estimate_line(job_id: str, estimate: Estimate) -> Line:
    """Render a queued job's new estimate, which the log does not keep."""
    about = {"position": estimate.position, "eta_seconds": estimate.eta_seconds}
    data = _render(EventType.QUEUED, job_id, about).encode()
    return Line(None, job_id, None, EventType.QUEUED, estimate, data)


def _render(kind: EventType, job_id: str, about: Mapping[str, object]) -> str:
    data = json.dumps({"job_id": job_id, **about}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n"


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
        return any(line.type.terminal for line in self.lines)

    def after(self, event_id: int) -> "Chunk":
        """The lines with a greater id than this, and those without one."""
        fresh = [line for line in self.lines if line.id is None or line.id > event_id]
        return self if len(fresh) == len(self.lines) else Chunk(fresh)


class Batch(Chunk):
    """Lines of all jobs that came together."""

    def by_job(self) -> dict[str, Chunk]:
        """Each job's lines."""
        found: dict[str, list[Line]] = {}
        for line in self.lines:
            found.setdefault(line.job_id, []).append(line)
        return {job_id: Chunk(lines) for job_id, lines in found.items()}

    def by_client(self) -> dict[str | None, Chunk]:
        """Each client's lines."""
        found: dict[str | None, list[Line]] = {}
        for line in self.lines:
            found.setdefault(line.client, []).append(line)
        return {client: Chunk(lines) for client, lines in found.items()}


class TooSlowError(DarkroomError, ConnectionError):
    """A listener does not keep up. It can come back with `Last-Event-ID`."""


class Listener:
    """What one open stream was sent, and what waits to be sent. Lives on the event loop.

    Args:
        job_id: listened to; None is all jobs.
        client: whose jobs' events may be seen; None is everybody's.

    Attributes:
        over: whether nothing more is to be sent.
        beats: whether a heartbeat is due.
        estimate: of the queued job, as it was sent last.
    """

    def __init__(self, job_id: str | None, client: str | None) -> None:
        self.job_id = job_id
        self.client = client
        self.over = False
        self.beats = False
        self.estimate: Estimate | None = None
        self._may_wait = job_id is not None  # whether the job is queued, by what was sent
        self._caught_up = False
        self._chunks: deque[Chunk] = deque()
        self._bytes = 0
        self._beat: asyncio.TimerHandle | None = None
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

    def beat_after(self, seconds: float) -> None:
        """Have one more heartbeat be due."""
        self.beats = False
        self._beat = asyncio.get_running_loop().call_later(seconds, self._beat_now)

    def _beat_now(self) -> None:
        self.beats = True
        self.wake()

    def leave(self) -> None:
        self.over = True
        if self._beat is not None:
            self._beat.cancel()
        self.wake()

    async def take(self) -> list[Chunk]:
        """Wait for something to send; maybe nothing, then `over` or `beats` is set.

        Raises:
            TooSlowError: more than `MAX_BACKLOG_BYTES` waited.
        """
        self._caught_up = True
        if not (self._bytes or self.over or self.beats):
            self._news.clear()
            await self._news.wait()
        if self._bytes > MAX_BACKLOG_BYTES:
            raise TooSlowError
        taken = list(self._chunks)
        self._chunks.clear()
        self._bytes = 0
        return taken

    def note_sent(self, lines: Sequence[Line]) -> None:
        """Remember what was sent."""
        for line in lines:
            if line.type is not EventType.NOTE:
                self.estimate = line.estimate
                self._may_wait = line.type is EventType.QUEUED and self.job_id is not None

    def waits(self) -> bool:
        """Whether all there is was sent, and by that the job is queued."""
        return self._may_wait and self._caught_up and not self._chunks and not self.over

    def offer(self, estimate: Estimate | None) -> None:
        """Send the job's estimate if it has changed; None if the job is not queued."""
        if not self.waits():
            return
        if estimate is None:
            self._may_wait = False
        elif self.job_id is not None and (
            self.estimate is None or differs(estimate, self.estimate)
        ):
            self.push(Chunk([estimate_line(self.job_id, estimate)]))
            self.wake()


def differs(new: Estimate, old: Estimate) -> bool:
    """Whether two estimates differ by enough to be sent."""
    if new.position != old.position or new.eta_seconds is None or old.eta_seconds is None:
        return new != old
    change_s = abs(new.eta_seconds - old.eta_seconds)
    return change_s > min(NOTABLE_S, NOTABLE_PART * old.eta_seconds)
