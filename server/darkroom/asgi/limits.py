"""What requests may take at once: threads, and memory and disk for their bodies.

A body is read before a thread is spent on it, into memory while it is small, else into a file.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import ParamSpec, TypeVar

from darkroom.asgi import Receive, Scope, refusals
from darkroom.config import WebSettings
from darkroom.errors import DarkroomError

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


class CallerGoneError(DarkroomError, ConnectionError):
    """Nobody is left to answer."""


class Body:
    """A body as a file, at its beginning once it has been read. Closing it makes room for others.

    Args:
        folder: for what does not stay in memory; the file never has a name there.
        released: called once with the size.
    """

    def __init__(self, folder: Path, released: Callable[[int], None]) -> None:
        self.file: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(  # noqa: SIM115
            max_size=SPOOL_BYTES, dir=str(folder)
        )
        self.size = 0
        self._released = released

    @property
    def is_small(self) -> bool:
        return self.size <= SMALL_BYTES

    def close(self) -> None:
        if not self.file.closed:
            self.file.close()
            self._released(self.size)


class Bodies:
    """The bodies that this process holds. Its methods run on the event loop.

    Args:
        limits: of sizes and times.
        folder: on the disk that large bodies may fill.
        threads: to write to that disk in.
    """

    def __init__(self, limits: WebSettings, folder: Path, threads: Threads) -> None:
        self._limits = limits
        self._folder = folder
        self._threads = threads
        self._large_bytes = 0  # in all bodies that are not small

    async def read(self, scope: Scope, receive: Receive) -> Body:
        """Read a request's body to its end.

        Raises:
            RefusedError: it is too large or too slow, or there is no room.
            CallerGoneError: the connection ended before it.
        """
        declared, is_chunked = _framing(scope)
        if declared > self._limits.max_body_bytes:
            raise refusals.long_body(self._limits.max_body_bytes)
        body = Body(self._folder, self._release)
        try:
            if declared or is_chunked:
                await self._fill(body, receive)
        except BaseException:
            body.close()
            raise
        return body

    async def _fill(self, body: Body, receive: Receive) -> None:
        now = asyncio.get_running_loop().time
        began, gathered, more = now(), bytearray(), True
        while more:
            patience_s = self._limits.body_timeout_s
            late_at = began + patience_s + body.size / MIN_BYTES_PER_S
            try:
                async with asyncio.timeout(min(patience_s, late_at - now())):
                    message = await receive()
            except TimeoutError:
                raise refusals.slow_body() from None
            if message["type"] != "http.request":
                raise CallerGoneError
            data, more = message["body"], message["more_body"]
            self._count(body, len(data))
            gathered += data
            if len(gathered) >= SPOOL_BYTES or not more:
                try:
                    await self._store(body, bytes(gathered))
                except OSError:
                    raise refusals.disk_full() from None
                gathered.clear()
        body.file.seek(0)

    def _count(self, body: Body, more: int) -> None:
        before = 0 if body.is_small else body.size
        body.size += more
        self._large_bytes += (0 if body.is_small else body.size) - before
        if body.size > self._limits.max_body_bytes:
            raise refusals.long_body(self._limits.max_body_bytes)
        if self._large_bytes > BODIES_AT_ONCE * self._limits.max_body_bytes:
            raise refusals.no_room("too many uploads come in at once")

    def _release(self, size: int) -> None:
        self._large_bytes -= size if size > SMALL_BYTES else 0

    async def _store(self, body: Body, data: bytes) -> None:
        if body.size <= SPOOL_BYTES:
            body.file.write(data)  # to memory
        else:
            await self._threads.run(body.file.write, data)


def may_be_large(scope: Scope) -> bool:
    """Whether a request's body may be one that goes to disk, by its headers."""
    declared, is_chunked = _framing(scope)
    return is_chunked or declared > SMALL_BYTES


def is_packed(scope: Scope) -> bool:
    """Whether a request's body is compressed, and may be large when it is unpacked."""
    return any(name == b"content-encoding" for name, _ in scope["headers"])


def _framing(scope: Scope) -> tuple[int, bool]:
    """The declared length of a body, 0 without one, and whether it comes in chunks instead."""
    headers = dict(scope["headers"])  # each occurs once, and is a number: gunicorn has checked
    return int(headers.get(b"content-length", b"0")), b"transfer-encoding" in headers
