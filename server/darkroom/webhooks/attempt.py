"""One attempt to deliver a webhook, and what the receiver's answer means."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx2
import structlog

from darkroom import destinations
from darkroom.config import WebhookSettings
from darkroom.webhooks import signing
from darkroom.webhooks.deliveries import Delivery

log = structlog.get_logger()

# These, and all from 500 on, may pass; Standard Webhooks, "Deliverability and reliability".
TEMPORARY = (408, 429)


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


class Attempt(threading.Thread):
    """Sends a delivery once, in a daemon thread: slow receivers and resolvers block no other.

    Redirects are not followed. Of the response only the head is read.

    Args:
        delivery: claimed.
        settings: which addresses may be called, and for how long, name lookup included.
        get_key: returns the key of the signature. Raises SecretError.
        tls: the trusted certificates.
        now: seconds since the epoch.
        done: called from the thread once `outcome` is set.

    Attributes:
        outcome: None until the thread has finished.
        recorded: for the sender: whether the database has the result.
    """

    def __init__(
        self,
        delivery: Delivery,
        settings: WebhookSettings,
        get_key: Callable[[], bytes],
        tls: ssl.SSLContext,
        now: float,
        done: Callable[[], None],
    ) -> None:
        super().__init__(name="webhook_attempt", daemon=True)
        self.delivery = delivery
        self.outcome: Outcome | None = None
        self.recorded = False
        self.started_at = time.monotonic()
        self.ends_at = float("inf")  # until it is signed
        self._settings = settings
        self._get_key = get_key
        self._tls = tls
        self._now = now
        self._done = done
        self._sockets: list[socket.socket] = []

    def run(self) -> None:
        try:
            self.outcome = self._send()
        except signing.SecretError as error:
            log.error("webhooks cannot be signed", reason=str(error))
            self.outcome = Outcome("again", "was not called: the secret that signs is missing")
        except httpx2.TimeoutException:
            self.outcome = self.timed_out()
        except Exception as error:  # no answer, however broken, may stop other deliveries
            self.outcome = Outcome("again", _reason(error))
        self._done()

    def timed_out(self) -> Outcome:
        """The outcome of an attempt without an answer in time."""
        return Outcome("again", f"did not answer within {self._settings.timeout_s:g} s")

    def break_off(self) -> None:
        """Shut the connection, so that a receiver that sends byte by byte cannot hold the thread.

        Not closed: the number of a closed socket could be another file's before the thread notices.
        """
        for opened in self._sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(opened, socket.SHUT_RDWR)

    def _send(self) -> Outcome:
        # The settings may have changed since the job was accepted.
        place = destinations.parse(self.delivery.url)
        if not destinations.is_allowed(place, self._settings.allow):
            return Outcome("refused", "is no longer allowed by webhooks.allow")
        body = self.delivery.body()
        headers = signing.headers(self.delivery.job.id, body, self._get_key(), self._now)
        # One client per attempt, so that no cookie and no connection is kept. Proxies and passwords
        # in the environment are not meant for receivers.
        with (
            httpx2.Client(
                verify=self._tls, trust_env=False, timeout=self._settings.timeout_s
            ) as http,
            http.stream(
                "POST",
                self.delivery.url,
                content=body,
                headers=headers,
                extensions={"trace": self._keep_socket},
            ) as answer,
        ):
            return _judge(answer.status_code, answer.headers.get("retry-after"))

    def _keep_socket(self, event: str, info: dict[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._sockets.append(info["return_value"].get_extra_info("socket"))


def _judge(status: int, retry_after: str | None) -> Outcome:
    if 200 <= status < 300:
        return Outcome("delivered")
    if status in TEMPORARY or status >= 500:
        wanted_s = retry_after_s(retry_after, datetime.now(UTC))
        return Outcome("again", f"answered {status}", wanted_s)
    hint = "; redirects are not followed" if 300 <= status < 400 else ""
    return Outcome("refused", f"answered {status}{hint}")


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """The seconds of a `Retry-After` header (RFC 9110, section 10.2.3); None if it is not valid."""
    if value is None:
        return None
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - now).total_seconds())


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
