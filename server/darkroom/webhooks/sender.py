"""Sends the webhooks that are due, from one thread, until it is stopped."""

import contextlib
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Literal

import httpx2
import structlog

from darkroom import destinations
from darkroom.config import WebhookSettings
from darkroom.responses import Event
from darkroom.storage.database import DatabaseUnavailableError
from darkroom.webhooks import signing
from darkroom.webhooks.deliveries import LONGEST_WAIT_S, Delivery, Outbox

log = structlog.get_logger()

AT_ONCE = 2  # deliveries under way to one origin
LOOK_EVERY_S = 1.0  # for retries that fall due, and what other processes left
GROWTH = 4.0  # of the wait, from one attempt to the next
JITTER = 0.25  # at most so much longer, so that a receiver that was away does not get all at once
STOP_S = 2.0
# These, and all from 500 on, may pass; Standard Webhooks, "Deliverability and reliability".
TEMPORARY = (408, 429)

Result = Literal["delivered", "postponed", "given_up"]


@dataclass(frozen=True)
class Outcome:
    """The result of an attempt.

    Attributes:
        kind: after `again` a later attempt may succeed, after `refused` none will.
        reason: for people. Contains neither the receiver's words nor its address.
        retry_after_s: as the receiver asked, or None.
    """

    kind: Literal["delivered", "again", "refused"]
    reason: str = ""
    retry_after_s: float | None = None


@dataclass(eq=False)
class Attempt:
    """One try to deliver, in a daemon thread: slow receivers and resolvers block no other.

    Attributes:
        delivery: claimed.
        started_at: monotonic.
        ends_at: monotonic. It has failed by then, even if its thread goes on.
        outcome: None until the thread has finished.
        recorded: whether the database has the result.
    """

    delivery: Delivery
    started_at: float
    ends_at: float
    outcome: Outcome | None = None
    recorded: bool = False
    _sockets: list[socket.socket] = field(default_factory=list)

    def keep_socket(self, event: str, info: dict[str, Any]) -> None:
        """Keep the connection, to break it off; the HTTP client calls this as it goes on."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._sockets.append(info["return_value"].get_extra_info("socket"))

    def break_off(self) -> None:
        """Shut the connection, so that a receiver that sends byte by byte cannot hold the thread.

        Not closed: the number of a closed socket could be another file's before the thread notices.
        """
        for opened in self._sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(opened, socket.SHUT_RDWR)


def _judge(status: int, retry_after: str | None) -> Outcome:
    if 200 <= status < 300:
        return Outcome("delivered")
    if status in TEMPORARY or status >= 500:
        return Outcome("again", f"answered {status}", _retry_after_s(retry_after))
    hint = "; redirects are not followed" if 300 <= status < 400 else ""
    return Outcome("refused", f"answered {status}{hint}")


def _retry_after_s(value: str | None) -> float | None:
    """The seconds of a `Retry-After` header (RFC 9110, section 10.2.3); None if it is not valid."""
    if value is None:
        return None
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    wait = until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)
    return max(0.0, wait.total_seconds())


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"has a certificate that is not trusted: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.ConnectError):
        return "cannot be reached"
    if isinstance(error, httpx2.ProtocolError):
        return "broke the connection off, or answered in something else than HTTP"
    if isinstance(error, httpx2.NetworkError):
        return "broke the connection off"
    return f"cannot be called: {type(error).__name__}"


class WebhookSender:
    """Sends messages about ended jobs. A receiver that does not answer delays only itself.

    The sender's thread alone uses the database; each attempt waits for its receiver in a thread of
    its own. A message that was sent but not recorded when the process dies is sent again under the
    same `webhook-id`.

    Args:
        outbox: with the deliveries.
        settings: which addresses may be called, how often, and how long one may take.
        get_key: returns the key of the signatures, when there is something to sign. May raise
            SecretError.
        count: called with the result of each attempt.
    """

    def __init__(
        self,
        outbox: Outbox,
        settings: WebhookSettings,
        get_key: Callable[[], bytes],
        count: Callable[[Result], None],
    ) -> None:
        self._outbox = outbox
        self._settings = settings
        self._get_key = get_key
        self._count = count
        self._timed_out = Outcome("again", f"did not answer within {settings.timeout_s:g} s")
        self._attempts: list[Attempt] = []
        self._stuck: set[str] = set()  # jobs whose result cannot be written: not sent for ever
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook_sender", daemon=True)

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
                under_way = {attempt.delivery.job.id for attempt in self._attempts}
                self._outbox.recover_unknown(under_way | self._stuck)
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
            now = time.monotonic()
            attempt = Attempt(delivery, now, now + self._settings.timeout_s)
            self._attempts.append(attempt)
            threading.Thread(
                target=self._attempt, args=(attempt,), name="webhook_attempt", daemon=True
            ).start()

    def _record_all(self) -> None:
        """Record the attempts that have ended or taken too long, and drop those that are finished.

        A result that cannot be written is kept for the next turn, and so is its claim. An attempt
        whose thread goes on past its time, in a resolver perhaps, still counts as under way.
        """
        for attempt in self._attempts:
            outcome = attempt.outcome
            if attempt.recorded or (outcome is None and time.monotonic() < attempt.ends_at):
                continue
            if outcome is None:
                attempt.break_off()
            try:
                self._record(attempt, outcome or self._timed_out)
                attempt.recorded = True
            except DatabaseUnavailableError as error:
                log.warning("a webhook's result cannot be written yet", reason=str(error))
            except Exception:
                # A bug. It stays claimed until this process ends, so that it is not sent for ever.
                log.exception("a webhook's result cannot be written")
                self._stuck.add(attempt.delivery.job.id)
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
            wait_s = self._wait_s(delivery.attempt, outcome.retry_after_s or 0.0)
            self._outbox.postpone(delivery, wait_s, outcome.reason)
            self._count("postponed")
            about["again_s"] = round(wait_s, 1)
            log.warning("webhook not delivered", reason=outcome.reason, **about)
        else:
            self._outbox.give_up(delivery, outcome.reason)
            self._count("given_up")
            log.error("webhook given up", reason=outcome.reason, **about)

    def _wait_s(self, attempts: int, wanted_s: float) -> float:
        grown = self._settings.retry_s * GROWTH ** min(attempts - 1, 16)
        return min(max(grown * (1 + JITTER * random.random()), wanted_s), LONGEST_WAIT_S)

    def _put_back(self) -> None:
        under_way = [attempt for attempt in self._attempts if not attempt.recorded]
        for attempt in under_way:
            attempt.break_off()
        try:
            self._outbox.put_back([attempt.delivery for attempt in under_way])
        except DatabaseUnavailableError:  # their claims lapse
            log.warning("webhooks under way are sent again later", count=len(under_way))

    # --- the threads of attempts -------------------------------------------------------------

    def _attempt(self, attempt: Attempt) -> None:
        try:
            attempt.outcome = self._send(attempt)
        except signing.SecretError as error:
            log.error("webhooks cannot be signed", reason=str(error))
            attempt.outcome = Outcome("again", "was not called: the secret that signs is missing")
        except httpx2.TimeoutException:
            attempt.outcome = self._timed_out
        except Exception as error:  # no answer, however broken, may stop other deliveries
            attempt.outcome = Outcome("again", _reason(error))
        self._news.set()

    def _send(self, attempt: Attempt) -> Outcome:
        """Send a delivery. Redirects are not followed; of the response only the head is read."""
        delivery = attempt.delivery
        # The settings may have changed since the job was accepted.
        if not destinations.is_allowed(destinations.parse(delivery.url), self._settings.allow):
            return Outcome("refused", "is no longer allowed by webhooks.allow")
        body = delivery.body()
        headers = signing.headers(delivery.job.id, body, self._get_key(), time.time())
        # One client per attempt, so that no cookie and no connection is kept. Proxies and passwords
        # in the environment are not meant for receivers.
        with (
            httpx2.Client(
                verify=self._tls, trust_env=False, timeout=self._settings.timeout_s
            ) as http,
            http.stream(
                "POST",
                delivery.url,
                content=body,
                headers=headers,
                extensions={"trace": attempt.keep_socket},
            ) as answer,
        ):
            return _judge(answer.status_code, answer.headers.get("retry-after"))

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The certificates that this machine trusts; read when there is something to send."""
        return ssl.create_default_context()
