"""Answers to requests that never reach Flask, in the one error shape."""

import secrets

from darkroom.errors import DarkroomError
from darkroom.responses import Problem


class RefusedError(DarkroomError):
    """Ends a request before or beside Flask, and its connection with it.

    Args:
        status: HTTP status.
        kind: last part of the problem's type.
        title: the same for every problem of this type.
        detail: what happened this time, and what to do.
        retry_after_s: when to come again, if that helps.
    """

    def __init__(
        self, status: int, kind: str, title: str, detail: str, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.problem = Problem(
            type=f"urn:darkroom:problem:{kind}",
            title=title,
            status=status,
            detail=detail,
            request_id=secrets.token_hex(8),
        )
        self._retry_after_s = retry_after_s

    def body(self) -> bytes:
        return self.problem.model_dump_json(exclude_none=True, exclude_defaults=True).encode()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Names in lower case, as ASGI has them."""
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(self.body())).encode()),
            (b"x-request-id", str(self.problem.request_id).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"connection", b"close"),
        ]
        if self._retry_after_s is not None:
            headers.append((b"retry-after", str(self._retry_after_s).encode()))
        return headers


class TurnedAwayError(RefusedError):
    """The door's answer, given before the body was read.

    Args:
        status: HTTP status.
        headers: names in lower case.
        body: in the shape of the API that was asked.
    """

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        Exception.__init__(self, status)
        self.status = status
        self._headers = headers
        self._body = body

    def body(self) -> bytes:
        return self._body

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*self._headers, (b"connection", b"close")]


def malformed(what: str) -> RefusedError:
    return RefusedError(
        400, "malformed", "Not HTTP as we know it", f"the request is malformed: {what}"
    )


def long_head(limit: int) -> RefusedError:
    detail = f"the request's line and headers are longer than {limit} bytes"
    return RefusedError(431, "head-too-long", "Headers too long", detail)


def slow_head(limit_s: float) -> RefusedError:
    detail = f"the request's line and headers were not complete after {limit_s:g} s"
    return RefusedError(408, "too-slow", "Too slow", detail)


def slow_body() -> RefusedError:
    return RefusedError(
        408, "too-slow", "Too slow", "the request's body came too slowly; send it again"
    )


def long_body(limit: int) -> RefusedError:
    detail = f"the request's body is larger than {limit} bytes"
    return RefusedError(413, "body-too-large", "Body too large", detail)


def no_room(what: str) -> RefusedError:
    return RefusedError(503, "busy", "Busy", f"{what}; try again", retry_after_s=2)


def disk_full() -> RefusedError:
    detail = "there is no room on the disk for the request's body"
    return RefusedError(507, "disk-full", "The disk is full", detail)


def crashed() -> RefusedError:
    detail = "The server made a mistake. Its log has more, under this request id."
    return RefusedError(500, "internal", "Internal error", detail)
