"""Answers to requests that never reach Flask, in the one error shape (RFC 9457)."""

import secrets

from darkroom.errors import DarkroomError
from darkroom.responses import Problem


class RefusedError(DarkroomError):
    """Ends a request before or beside Flask, and its connection with it.

    Args:
        status: HTTP status.
        headers: names in lower case.
        body: of the answer.
    """

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = [*headers, (b"connection", b"close")]
        self.body = body


def _problem(
    status: int,
    kind: str,
    title: str,
    detail: str,
    *,
    retry_after_s: int | None = None,
    request_id: str | None = None,
) -> RefusedError:
    """A refusal whose body is a problem.

    Args:
        status: HTTP status.
        kind: last part of the problem's type.
        title: the same for every problem of this type.
        detail: what happened this time, and what to do.
        retry_after_s: when to try again, if that helps.
        request_id: a new one if it has none yet.
    """
    request_id = request_id or secrets.token_hex(8)
    problem = Problem(
        type=f"urn:darkroom:problem:{kind}",
        title=title,
        status=status,
        detail=detail,
        request_id=request_id,
    )
    body = problem.model_dump_json(exclude_none=True, exclude_defaults=True).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    return RefusedError(status, headers, body)


def malformed(what: str) -> RefusedError:
    detail = f"the request is malformed: {what}"
    return _problem(400, "malformed", "Not HTTP as we know it", detail)


def long_head(limit: int) -> RefusedError:
    detail = f"the request's line and headers are longer than {limit} bytes"
    return _problem(431, "head-too-long", "Headers too long", detail)


def slow_head(limit_s: float) -> RefusedError:
    detail = f"the request's line and headers were not complete after {limit_s:g} s"
    return _problem(408, "too-slow", "Too slow", detail)


def slow_body() -> RefusedError:
    detail = "the request's body came too slowly; send it again"
    return _problem(408, "too-slow", "Too slow", detail)


def long_body(limit: int) -> RefusedError:
    detail = f"the request's body is larger than {limit} bytes"
    return _problem(413, "body-too-large", "Body too large", detail)


def no_room(what: str) -> RefusedError:
    return _problem(503, "busy", "Busy", f"{what}; try again", retry_after_s=2)


def disk_full() -> RefusedError:
    detail = "there is no room on the disk for the request's body"
    return _problem(507, "disk-full", "The disk is full", detail)


def crashed(request_id: str) -> RefusedError:
    detail = "The server made a mistake. Its log has more, under this request id."
    return _problem(500, "internal", "Internal error", detail, request_id=request_id)
