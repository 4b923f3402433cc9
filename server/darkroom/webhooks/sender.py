"""Delivers deliveries from an event loop in a thread of its own, until it is stopped."""

import asyncio
import contextlib
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import structlog

from darkroom import destinations
from darkroom.config import WebhookSettings
from darkroom.responses import Event
from darkroom.storage.database import DatabaseUnavailableError
from darkroom.webhooks import message
from darkroom.webhooks.attempt import Outcome, attempt
from darkroom.webhooks.deliveries import LONGEST_WAIT_S, Delivery, Outbox
from darkroom.webhooks.signing import SecretError

log = structlog.get_logger()

AT_ONCE = 2  # deliveries on their way to one origin
LOOK_EVERY_S = 5.0  # when nobody says that a job has ended
AGAIN_S = 1.0
GROWTH = 4.0  # of the wait, from one attempt to the next
JITTER = 0.25  # at most so much longer: receivers that were away are not met by all at once
STOP_S = 2.0

Result = Literal["delivered", "postponed", "given_up"]


class WebhookSender:
    """Tells those who are to be told. One that does not answer holds up nobody else's deliveries.

    What is sent and not yet noted when the process dies is sent again: the same `webhook-id` means
    the same message.

    Args:
        outbox: what is due.
        settings: who may be called, and how often.
        get_key: of the signatures; asked for in a thread, when there is something to sign. Raises
            SecretError.
        count: is told what came of each attempt.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        outbox: Outbox,
        settings: WebhookSettings,
        get_key: Callable[[], bytes],
        count: Callable[[Result], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._settings = settings
        self._get_key = get_key
        self._count = count
        self._clock = clock
        self._under_way: dict[asyncio.Task[None], Delivery] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="webhook_sender", daemon=True)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Trusts whom this machine trusts. Read when there is something to send."""
        return ssl.create_default_context()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Break off what is on its way, and put it back. Takes no longer than `STOP_S`."""
        self._stopping.set()
        self._wake()
        self._thread.join(STOP_S)

    def hear(self, events: Sequence[Event]) -> None:
        """Look at once if a job has ended. From any thread."""
        if any(event.type.terminal for event in events):
            self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(self._news.set)

    # --- the loop --------------------------------------------------------------------------

    def _work(self) -> None:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            self._loop = runner.get_loop()
            runner.run(self._deliver_all())
            self._loop = None

    async def _deliver_all(self) -> None:
        while not self._stopping.is_set():
            self._news.clear()
            patience_s = LOOK_EVERY_S
            try:
                patience_s = await self._look()
            except DatabaseUnavailableError as error:
                log.warning("webhooks cannot be looked for", reason=str(error))
            except Exception:
                log.exception("webhooks cannot be looked for")  # perhaps next time
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._news.wait()
        await self._break_off()

    async def _look(self) -> float:
        """Begin with what is due. Returns how long to wait for more."""
        await asyncio.to_thread(self._outbox.recover_lapsed)
        busy = Counter(delivery.origin for delivery in self._under_way.values())
        for delivery in await asyncio.to_thread(self._outbox.claim, AT_ONCE, busy):
            task = asyncio.create_task(self._deliver(delivery))
            self._under_way[task] = delivery
            task.add_done_callback(self._done)
        due_s = await asyncio.to_thread(self._outbox.next_due_s)
        return LOOK_EVERY_S if due_s is None else min(LOOK_EVERY_S, due_s)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not self._stopping.is_set():
            del self._under_way[task]
            self._news.set()  # there is room for another
        if not task.cancelled() and task.exception() is not None:
            # A fault of ours. It stays claimed, so that it is not tried again and again: until this
            # process ends.
            log.error("a webhook was not seen to its end", exc_info=task.exception())

    async def _break_off(self) -> None:
        under_way = dict(self._under_way)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        try:
            await asyncio.to_thread(self._outbox.put_back, tuple(under_way.values()))
        except DatabaseUnavailableError:  # their claims lapse
            log.warning("webhooks on their way are sent again later", count=len(under_way))

    # --- one delivery ------------------------------------------------------------------------

    async def _deliver(self, delivery: Delivery) -> None:
        began = time.monotonic()
        outcome = await self._send(delivery)
        about = {"job_id": delivery.job.id, "origin": delivery.origin, "attempt": delivery.attempt}
        about["seconds"] = round(time.monotonic() - began, 3)
        if outcome.kind == "delivered":
            await self._note(lambda: self._outbox.delivered(delivery))
            self._count("delivered")
            log.info("webhook delivered", **about)
        elif outcome.kind == "again" and delivery.attempt < self._settings.max_attempts:
            wait_s = self._wait_s(delivery.attempt, outcome.retry_after_s)
            await self._note(lambda: self._outbox.postpone(delivery, wait_s, outcome.reason))
            self._count("postponed")
            log.warning(
                "webhook not delivered", reason=outcome.reason, again_s=round(wait_s, 1), **about
            )
        else:
            await self._note(lambda: self._outbox.give_up(delivery, outcome.reason))
            self._count("given_up")
            log.error("webhook given up", reason=outcome.reason, **about)

    async def _send(self, delivery: Delivery) -> Outcome:
        try:
            # Settings may have changed since the job was accepted.
            place = destinations.parse(delivery.url)
            if not destinations.is_allowed(place, self._settings.allow):
                return Outcome("refused", "is no longer allowed by webhooks.allow")
            key = await asyncio.to_thread(self._get_key)
        except SecretError as error:
            log.error("webhooks cannot be signed", reason=str(error))
            return Outcome("again", "could not be told, for want of the secret that signs")
        body = message.content(delivery.job)
        headers = message.headers(delivery.job.id, body, key, self._clock())
        return await attempt(delivery.url, body, headers, self._settings.timeout_s, self._tls)

    def _wait_s(self, attempts: int, wanted_s: float | None) -> float:
        grown = self._settings.retry_s * GROWTH ** min(attempts - 1, 16)
        wait_s = min(grown * (1 + JITTER * random.random()), LONGEST_WAIT_S)
        return max(wait_s, min(wanted_s or 0.0, LONGEST_WAIT_S))

    async def _note(self, write: Callable[[], None]) -> None:
        """Write what came of an attempt: again and again, until the database takes it.

        The delivery stays claimed meanwhile, so that it is not sent once more for want of space.
        """
        while True:
            try:
                return await asyncio.to_thread(write)
            except DatabaseUnavailableError as error:
                log.warning("what came of a webhook cannot be written yet", reason=str(error))
                await asyncio.sleep(AGAIN_S)


class _Loop(asyncio.SelectorEventLoop):
    """Looks names up in threads that nobody waits for: a resolver may take minutes to give up."""

    async def getaddrinfo(self, *args: Any, **about: Any) -> Any:
        found: asyncio.Future[Any] = self.create_future()

        def tell(setter: Callable[[Any], None], value: Any) -> None:
            if not found.done():
                setter(value)

        def look_up() -> None:
            try:
                result = socket.getaddrinfo(*args, **about)
            except Exception as error:
                answer: tuple[Callable[[Any], None], Any] = (found.set_exception, error)
            else:
                answer = (found.set_result, result)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self.call_soon_threadsafe(tell, *answer)

        threading.Thread(target=look_up, name="name look-up", daemon=True).start()
        return await found
