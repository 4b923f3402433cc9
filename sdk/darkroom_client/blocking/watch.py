"""A job's event stream that outlives its connections."""

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TypeAlias

from darkroom_client.blocking.picture import Image
from darkroom_client.blocking.transport import Transport
from darkroom_client.core import call
from darkroom_client.core.answer import Answer
from darkroom_client.core.errors import APIError, ConnectionFailedError, WaitTimeoutError
from darkroom_client.core.events import AnyEvent, event_of
from darkroom_client.core.records import ImageRecord
from darkroom_client.core.retries import PASSING
from darkroom_client.core.sse import Decoder

Event: TypeAlias = AnyEvent[Image]

SILENCE_S = 40.0  # the server says something every 15 seconds; two may be lost
LATE_S = 1.0  # a deadline is kept to within this
NO_CONTENT = 204


class Watch:
    """Follows one job's events, in order and each once, over as many connections as it takes.

    Args:
        transport: to the server.
        job_id: of the job.
        reattach_for_s: how long to look for a server that went away.
        timeout_s: how long to follow, or None.
    """

    def __init__(
        self,
        transport: Transport,
        job_id: str,
        reattach_for_s: float,
        timeout_s: float | None,
    ) -> None:
        self._transport = transport
        self._effects = transport.effects
        self._job_id = job_id
        self._reattach_for_s = reattach_for_s
        self._timeout_s = timeout_s
        self._deadline = math.inf if timeout_s is None else self._effects.clock() + timeout_s
        self._after = 0
        self._over = False
        self._retries = 0
        self._lost_at: float | None = None

    def events(self) -> Generator[Event]:
        """Events from the first to the last.

        Raises:
            APIError: the server refuses.
            ConnectionFailedError: the server stays away for longer than `reattach_for_s`.
            WaitTimeoutError: the time is up; at most about a second late.
        """
        while not self._over:
            try:
                with closing(self._attached()) as events:
                    for event in events:
                        self._retries, self._lost_at = 0, None
                        if event is not None:
                            self._after = self._after if event.id is None else event.id
                            yield event
                            if event.terminal:
                                return
                        self._check_deadline()
            except ConnectionFailedError as error:
                self._pause(error)
            except APIError as error:
                if error.status not in PASSING:
                    raise
                self._pause(error)

    def _attached(self) -> Generator[Event | None]:
        """Events of one connection, and None for every other sign of life.

        A read that waits cannot be given another deadline. So the longest silence that a
        connection allows is what was left when it was opened, and when much less is left than
        that, this returns for another to be opened.
        """
        silence_s = self._silence_s()
        request = call.job_events(self._job_id, self._after)
        with self._transport.stream(request, silence_s) as (answer, chunks):
            if self._ends(answer, chunks):
                return
            decoder = Decoder()
            for chunk in chunks:
                yield None
                for message in decoder.feed(chunk):
                    yield event_of(message, self._image)
                if silence_s - self._silence_s() > LATE_S:
                    return
        raise ConnectionFailedError(f"the events of job {self._job_id} ended too early")

    def _ends(self, answer: Answer, body: Iterator[bytes]) -> bool:
        """Whether the server says that no more will come."""
        if not answer.ok:
            whole = b"".join(list(body))
            raise Answer(answer.status, answer.headers, whole).error()
        self._over = answer.status == NO_CONTENT
        return self._over

    def _image(self, record: ImageRecord) -> Image:
        return Image.of(record, self._transport)

    def _silence_s(self) -> float:
        return min(SILENCE_S, max(0.001, self._left_s()))

    def _left_s(self) -> float:
        return self._deadline - self._effects.clock()

    def _check_deadline(self) -> None:
        if self._left_s() <= 0:
            message = f"job {self._job_id} has not ended in {self._timeout_s} s; it goes on"
            raise WaitTimeoutError(message)

    def _pause(self, failure: ConnectionFailedError | APIError) -> None:
        """Wait before the next connection, or raise why there will be none."""
        self._check_deadline()
        now = self._effects.clock()
        self._lost_at = now if self._lost_at is None else self._lost_at
        if now - self._lost_at > self._reattach_for_s:
            raise failure
        pause_s = self._transport.policy.backoff_s(self._retries, self._effects.chance())
        if isinstance(failure, APIError) and failure.retry_after_s is not None:
            pause_s = failure.retry_after_s
        self._retries += 1
        self._effects.sleep(min(pause_s, max(0.0, self._left_s())))
