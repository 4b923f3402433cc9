"""One attempt to deliver a message, and what its answer means."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

import httpx2

PASSING = (408, 429)  # and all from 500 on; the specification, "Deliverability and reliability"


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt.

    Attributes:
        kind: `again` may do better another time, `refused` will not.
        reason: for people; never holds what the receiver said, nor where it is.
        retry_after_s: what the receiver asked for, or None.
    """

    kind: Literal["delivered", "again", "refused"]
    reason: str = ""
    retry_after_s: float | None = None


async def attempt(
    url: str, body: bytes, headers: Mapping[str, str], timeout_s: float, tls: ssl.SSLContext
) -> Outcome:
    """Send a message once. Redirects are not followed, and of the answer only its head is read.

    Args:
        url: that may be called.
        body: of the message.
        headers: the same.
        timeout_s: for everything, from looking up the name on.
        tls: whom to trust.
    """
    status, wanted = None, None
    reason = f"did not answer within {timeout_s:g} s"
    try:
        # A client for each, so that nothing of one answer, a cookie or a connection, is left for
        # the next. Proxies and passwords of the environment are somebody else's.
        async with (
            asyncio.timeout(timeout_s),
            httpx2.AsyncClient(verify=tls, trust_env=False, timeout=timeout_s) as http,
            http.stream("POST", url, content=body, headers=dict(headers)) as answer,
        ):
            status, wanted = answer.status_code, answer.headers.get("retry-after")
    except (TimeoutError, httpx2.TimeoutException):
        pass
    except Exception as error:  # whatever a receiver does, it is no reason to stop for the others
        reason = _reason(error)
    if status is None:
        return Outcome("again", reason)
    if 200 <= status < 300:
        return Outcome("delivered")
    if status in PASSING or status >= 500:
        return Outcome("again", f"answered {status}", retry_after_s(wanted, datetime.now(UTC)))
    hint = "; redirects are not followed" if 300 <= status < 400 else ""
    return Outcome("refused", f"answered {status}{hint}")


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """What a `Retry-After` header asks for (RFC 9110, section 10.2.3); None if nothing sensible."""
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
