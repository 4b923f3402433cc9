"""Reads messages of webhooks, after checking that they are from the server.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from darkroom_client.core.errors import DarkroomError
from darkroom_client.core.records import JobRecord

SECRET_PREFIX = "whsec_"
TOLERANCE_S = 300.0


class WebhookError(DarkroomError):
    """A request to a webhook that is not to be believed. Says why; answer it 400 or 401."""


@dataclass(frozen=True)
class WebhookMessage:
    """A message of the server.

    Attributes:
        id: the same when the message is sent again, which may happen: remember it to notice.
        type: `job.succeeded`, `job.failed` or `job.cancelled`.
        job: as it ended.
    """

    id: str
    type: str
    job: JobRecord


def verify_webhook(
    body: bytes,
    headers: Mapping[str, str],
    secret: str,
    *,
    tolerance_s: float = TOLERANCE_S,
    clock: Callable[[], float] = time.time,
) -> WebhookMessage:
    """See whether a request to a webhook is from the server that knows the secret, and read it.

    Args:
        body: as it came, byte by byte.
        headers: of the request; the case of their names does not matter.
        secret: as `darkroom webhooks secret` prints it.
        tolerance_s: how old, or how far ahead of this machine's clock, it may be.
        clock: seconds since the epoch.

    Raises:
        WebhookError: it is not, or too old.
        ValueError: the secret is none.
    """
    key = _key(secret)
    found = {name.lower(): value.encode(errors="replace") for name, value in headers.items()}
    try:
        message_id, timestamp, signatures = (
            found[f"webhook-{name}"] for name in ("id", "timestamp", "signature")
        )
    except KeyError as error:
        raise WebhookError(f"the request has no header {error.args[0]}") from None
    signed = b".".join((message_id, timestamp, body))
    right = b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
    # Several where the sender is changing its secret.
    if not any(hmac.compare_digest(right, one) for one in signatures.split()):
        raise WebhookError("the signature is not made with this secret, or not of this body")
    if not timestamp.isdigit() or abs(clock() - int(timestamp)) > tolerance_s:
        raise WebhookError(f"the request is more than {tolerance_s:g} s old, or from the future")
    try:
        message = json.loads(body)
        return WebhookMessage(
            message_id.decode(), message["type"], JobRecord.from_wire(message["data"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise WebhookError("the message is not one of a Darkroom server that this knows") from error


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ValueError("that is no secret of a webhook; `darkroom webhooks secret` prints it")
    return key
