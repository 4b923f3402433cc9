"""What requests may take at once, threads, memory and disk, and the answers to those refused.

A body is read before a thread is spent on it, into memory while it is small, else into a file.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import ParamSpec, TypeVar

from darkroom.asgi import Receive, Scope
from darkroom.config import WebSettings
from darkroom.errors import DarkroomError
from darkroom.responses import Problem

SMALL_BYTES = 2**16  # a request without pictures is smaller
SPOOL_BYTES = 2**18  # of one body in memory
BODIES_AT_ONCE = 8  # of the largest size; more, smaller ones
MIN_BYTES_PER_S = 1024  # on average, once `body_timeout_s` is over

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A pool of threads, for calls that would block the event loop.

    Args:
        count: of threads, each started when it is needed.
        name: for logs and debuggers.
    """

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, name)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread; raises what it does."""
        call = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        """Begin no more calls. Those that have begun go on to their end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


# --- bodies ----------------------------------------------------------------------------------


class CallerGoneError(DarkroomError, ConnectionError):
    """The connection ended before the request did."""


@dataclass
class Body:
    """A request's body, as a file that is at its beginning once it has been read."""

    file: SpooledTemporaryFile[bytes]
    size: int = 0

    @property
    def large_bytes(self) -> int:
        """Its size, or 0 if it is small."""
        return self.size if self.size > SMALL_BYTES else 0


class Bodies:
    """The bodies that this process holds. Its methods run on the event loop.

    Args:
        limits: of sizes and times.
        folder: on the disk that large bodies may fill; their files never have a name there.
        threads: to write to that disk in.
    """

    def __init__(self, limits: WebSettings, folder: Path, threads: Threads) -> None:
        self._limits = limits
        self._folder = str(folder)
        self._threads = threads
        self._large_bytes = 0  # in all bodies that are not small

    @asynccontextmanager
    async def read(self, declared: int | None, receive: Receive, limit: int) -> AsyncIterator[Body]:
        """Read a request's body to its end, and hold it.

        Args:
            declared: see `declared_bytes`.
            receive: of the request.
            limit: bytes that it may have.

        Raises:
            RefusedError: it is too large or too slow, or there is no room.
            CallerGoneError: the connection ended before it.
        """
        if (declared or 0) > limit:
            raise long_body(limit)
        with SpooledTemporaryFile(max_size=SPOOL_BYTES, dir=self._folder) as file:
            body = Body(file)
            try:
                if declared != 0:
                    await self._fill(body, receive, limit)
                yield body
            finally:
                self._large_bytes -= body.large_bytes

    async def _fill(self, body: Body, receive: Receive, limit: int) -> None:
        now = asyncio.get_running_loop().time
        began, gathered, more = now(), bytearray(), True
        while more:
            patience_s = self._limits.body_timeout_s
            late_at = began + patience_s + body.size / MIN_BYTES_PER_S
            try:
                async with asyncio.timeout(min(patience_s, late_at - now())):
                    message = await receive()
            except TimeoutError:
                raise slow_body() from None
            if message["type"] != "http.request":
                raise CallerGoneError
            data, more = message["body"], message["more_body"]
            before = body.large_bytes
            body.size += len(data)
            self._large_bytes += body.large_bytes - before
            if body.size > limit:
                raise long_body(limit)
            if self._large_bytes > BODIES_AT_ONCE * self._limits.max_body_bytes:
                raise no_room("too many uploads come in at once")
            gathered += data
            if len(gathered) >= SPOOL_BYTES or not more:
                try:
                    if body.size <= SPOOL_BYTES:
                        body.file.write(gathered)  # to memory
                    else:
                        await self._threads.run(body.file.write, bytes(gathered))
                except OSError:
                    raise disk_full() from None
                gathered.clear()
        body.file.seek(0)


def declared_bytes(scope: Scope) -> int | None:
    """The declared length of a request's body, 0 without one; None if it comes in chunks."""
    headers = dict(scope["headers"])  # each occurs once, and is a number: gunicorn has checked
    return None if b"transfer-encoding" in headers else int(headers.get(b"content-length", b"0"))


# --- refusals, in the one error shape (RFC 9457) -----------------------------------------------


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


def other_version(version: str) -> RefusedError:
    detail = f"this server speaks HTTP/1.1, and not {version}"
    return _problem(505, "http-version", "Another version of HTTP", detail)


def other_coding(what: str) -> RefusedError:
    detail = f"the body comes in a transfer coding that is not known here: {what}"
    return _problem(501, "transfer-coding", "Unknown transfer coding", detail)


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
