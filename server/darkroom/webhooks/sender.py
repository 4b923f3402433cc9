"""Sends the webhooks that are due, from one thread, until it is stopped."""

import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

import structlog

from darkroom.config import WebhookSettings
from darkroom.responses import Event
from darkroom.storage.database import DatabaseUnavailableError
from darkroom.webhooks.attempt import Attempt, Outcome
from darkroom.webhooks.deliveries import LONGEST_WAIT_S, Outbox

log = structlog.get_logger()

AT_ONCE = 2  # deliveries under way to one origin
LOOK_EVERY_S = 1.0  # for retries that fall due, and what other processes left
GROWTH = 4.0  # of the wait, from one attempt to the next
JITTER = 0.25  # at most so much longer, so that a receiver that was away does not get all at once
STOP_S = 2.0

Result = Literal["delivered", "postponed", "given_up"]


class WebhookSender:
    """Sends messages about ended jobs. A receiver that does not answer delays only itself.

    The sender's thread alone uses the database; each attempt waits for its receiver in a thread of
    its own. A message that was sent but not recorded when the process dies is sent again under the
    same `webhook-id`.

    Args:
        outbox: with the deliveries.
        settings: who may be called, and how often.
        get_key: returns the key of the signatures; called when there is something to sign. Raises
            SecretError.
        count: called with the result of each attempt.
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
        self._attempts: list[Attempt] = []
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook_sender", daemon=True)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The certificates that this machine trusts; read when there is something to send."""
        return ssl.create_default_context()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Break off what is under way, and make it due again. Takes at most `STOP_S`."""
        self._stopping.set()
        self._news.set()
        self._thread.join(STOP_S)

    def hear(self, events: Sequence[Event]) -> None:
        """Look for deliveries at once if a job has ended. From any thread."""
        if any(event.type.terminal for event in events):
            self._news.set()

    # --- the sender's thread -----------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._news.clear()
            self._record_all()
            try:
                self._outbox.recover_lapsed()
                self._start_due()
            except DatabaseUnavailableError as error:
                log.warning("webhooks cannot be looked for", reason=str(error))
            except Exception:
                log.exception("webhooks cannot be looked for")  # perhaps next time
            now = time.monotonic()
            ends = [attempt.ends_at - now for attempt in self._attempts if attempt.ends_at > now]
            self._news.wait(min([LOOK_EVERY_S, *ends]))
        self._record_all()
        self._put_back()

    def _start_due(self) -> None:
        busy = Counter(attempt.delivery.origin for attempt in self._attempts)
        for delivery in self._outbox.claim(AT_ONCE, busy):
            attempt = Attempt(
                delivery, self._settings, self._get_key, self._tls, self._clock(), self._news.set
            )
            self._attempts.append(attempt)
            attempt.start()

    def _record_all(self) -> None:
        """Record the attempts that have ended or taken too long, and drop those that are finished.

        A result that cannot be written is kept for the next turn, and so is its claim. An attempt
        whose thread goes on past its time, in a resolver perhaps, still counts as under way.
        """
        for attempt in self._attempts:
            overdue = time.monotonic() >= attempt.ends_at
            outcome = attempt.outcome or (attempt.timed_out() if overdue else None)
            if outcome is None or attempt.recorded:
                continue
            if attempt.outcome is None:
                attempt.break_off()
            try:
                self._record(attempt, outcome)
                attempt.recorded = True
            except DatabaseUnavailableError as error:
                log.warning("a webhook's result cannot be written yet", reason=str(error))
            except Exception:
                # A bug. It stays claimed until this process ends, so that it is not sent for ever.
                log.exception("a webhook's result cannot be written")
                attempt.recorded = True
        self._attempts = [
            attempt for attempt in self._attempts if attempt.outcome is None or not attempt.recorded
        ]

    def _record(self, attempt: Attempt, outcome: Outcome) -> None:
        delivery = attempt.delivery
        about = {"job_id": delivery.job.id, "origin": delivery.origin, "attempt": delivery.attempt}
        about["seconds"] = round(time.monotonic() - attempt.started_at, 3)
        if outcome.kind == "delivered":
            self._outbox.delivered(delivery)
            self._count("delivered")
            log.info("webhook delivered", **about)
        elif outcome.kind == "again" and delivery.attempt < self._settings.max_attempts:
            wait_s = self._wait_s(delivery.attempt, outcome.retry_after_s)
            self._outbox.postpone(delivery, wait_s, outcome.reason)
            self._count("postponed")
            log.warning(
                "webhook not delivered", reason=outcome.reason, again_s=round(wait_s, 1), **about
            )
        else:
            self._outbox.give_up(delivery, outcome.reason)
            self._count("given_up")
            log.error("webhook given up", reason=outcome.reason, **about)

    def _wait_s(self, attempts: int, wanted_s: float | None) -> float:
        grown = self._settings.retry_s * GROWTH ** min(attempts - 1, 16)
        wait_s = min(grown * (1 + JITTER * random.random()), LONGEST_WAIT_S)
        return max(wait_s, min(wanted_s or 0.0, LONGEST_WAIT_S))

    def _put_back(self) -> None:
        under_way = [attempt for attempt in self._attempts if not attempt.recorded]
        for attempt in under_way:
            attempt.break_off()
        try:
            self._outbox.put_back([attempt.delivery for attempt in under_way])
        except DatabaseUnavailableError:  # their claims lapse
            log.warning("webhooks under way are sent again later", count=len(under_way))
