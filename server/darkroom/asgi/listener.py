"""One who listens to events, on the event loop."""

import asyncio
from collections import deque
from collections.abc import Sequence

from darkroom.asgi.sse import Chunk, Line, estimate_line
from darkroom.errors import DarkroomError
from darkroom.responses import EventType
from darkroom.storage.records import Estimate

MAX_BACKLOG_BYTES = 2**20  # that may wait to be taken
NOTABLE_S, NOTABLE_PART = 2.0, 0.2  # an ETA is told anew when it moves by one of them, or more


class TooSlowError(DarkroomError, ConnectionError):
    """Who listens does not keep up. They can come back with `Last-Event-ID`."""


class Listener:
    """What one has been sent, and what waits to be.

    Attributes:
        job_id: listened to; None is all jobs.
        client: whose jobs' events may be seen; None is everybody's.
        over: whether nothing more is to be sent.
        beats: whether a sign of life is due.
        told: the prospects of their queued job, as they last heard of them.
    """

    def __init__(self, job_id: str | None, client: str | None) -> None:
        self.job_id = job_id
        self.client = client
        self.over = False
        self.beats = False
        self.told: Estimate | None = None
        self._may_wait = job_id is not None  # whether their job is queued, for all they heard
        self._caught_up = False
        self._pieces: deque[Chunk] = deque()
        self._bytes = 0
        self._beat: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()

    def push(self, piece: Chunk) -> None:
        """Give them something to send, when they are woken."""
        self._bytes += len(piece.data)
        if self._bytes > MAX_BACKLOG_BYTES:
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    def wake(self) -> None:
        self._news.set()

    def beat_after(self, seconds: float) -> None:
        """Have a sign of life be due once more."""
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
        """What there is to send once they are woken; maybe nothing.

        Raises:
            TooSlowError: it has become too much.
        """
        self._caught_up = True
        if not (self._bytes or self.over or self.beats):
            self._news.clear()
            await self._news.wait()
        if self._bytes > MAX_BACKLOG_BYTES:
            raise TooSlowError
        taken = list(self._pieces)
        self._pieces.clear()
        self._bytes = 0
        return taken

    def sent(self, lines: Sequence[Line]) -> None:
        """Remember what they have heard."""
        for line in lines:
            if line.type is not EventType.NOTE:
                self.told = line.estimate
                self._may_wait = line.type is EventType.QUEUED and self.job_id is not None

    def waits(self) -> bool:
        """Whether they have heard all there is, and by that their job is queued."""
        return self._may_wait and self._caught_up and not self._pieces and not self.over

    def foresee(self, estimate: Estimate | None) -> None:
        """Tell them their queued job's prospects if they have changed; None if it is not queued."""
        if not self.waits():
            return
        if estimate is None:
            self._may_wait = False
        elif self.job_id is not None and (self.told is None or differs(estimate, self.told)):
            self.push(Chunk([estimate_line(self.job_id, estimate)]))
            self.wake()


def differs(new: Estimate, old: Estimate) -> bool:
    """Whether prospects have changed by more than a person would shrug at."""
    if new.position != old.position or new.eta_seconds is None or old.eta_seconds is None:
        return new != old
    change_s = abs(new.eta_seconds - old.eta_seconds)
    return change_s > min(NOTABLE_S, NOTABLE_PART * old.eta_seconds)
