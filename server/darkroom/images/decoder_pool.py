"""Decodes uploads in separate processes, so that a hostile file can only end its own decoder."""

import multiprocessing
import queue
import threading
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import structlog
from pebble import ProcessExpired, ProcessPool

from darkroom.errors import DarkroomError, message
from darkroom.images import decoder
from darkroom.images.codec import PictureError
from darkroom.images.decoder import Decoded, Purpose, Result, Texts

log = structlog.get_logger()

MAX_WAITING = 32  # uploads that wait for a decoder, with their bytes in memory
START_S = 60.0  # a process that is not ready after this has failed to start


class BusyError(DarkroomError):
    """More pictures are waiting than can be decoded in time."""


class Decoders:
    """Decodes pictures, each in a process of limited time and memory.

    Each process has a pool of its own: in a shared pool, one that dies at a bad moment fails the
    pictures of the others.

    Args:
        count: of processes. They start at once, and are ready some tenths of a second later.
        timeout_s: for one picture; then its process is killed and replaced.
        memory_bytes: for one picture.
        max_pixels: width × height of one picture.
    """

    def __init__(self, count: int, timeout_s: float, memory_bytes: int, max_pixels: int) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._max_pixels = max_pixels
        self._room = threading.BoundedSemaphore(count + MAX_WAITING)
        self._free: queue.LifoQueue[ProcessPool] = queue.LifoQueue()  # the last used is warmest
        self._count = count
        for _ in range(count):
            self._free.put(self._start())

    def decode(self, data: bytes, purpose: Purpose) -> Decoded:
        """Decode an upload.

        Raises:
            PictureError: says what is wrong with it.
            BusyError: no decoder became free in time.
        """
        return self._run(data, decoder.decode, purpose, self._max_pixels)

    def read_texts(self, data: bytes) -> Texts:
        """The texts in a file's EXIF and comments; raises as `decode`."""
        return self._run(data, decoder.read_texts)

    def _run(self, data: bytes, task: Callable[..., Result], *args: Any) -> Result:
        """Call a function of `decoder` in one of the processes; raises as `decode`."""
        if not self._room.acquire(blocking=False):
            raise BusyError
        try:
            pool = self._free.get(timeout=self._timeout_s)
            try:
                return self._ask(pool, data, task, *args)
            except BrokenProcessPool:  # it died idle, or before it took the picture
                pool = self._replace(pool)
                return self._ask(pool, data, task, *args)
            finally:
                self._free.put(pool)
        except queue.Empty:
            raise BusyError from None
        except BrokenProcessPool:
            raise _crashed() from None
        finally:
            self._room.release()

    def close(self) -> None:
        """End all processes, each after its current picture. Later calls find none free."""
        count, self._count = self._count, 0
        for _ in range(count):
            _end(self._free.get())

    def _ask(
        self, pool: ProcessPool, data: bytes, task: Callable[..., Result], *args: Any
    ) -> Result:
        """Call a function in one process.

        Raises:
            PictureError: see `decode`.
            BrokenProcessPool: the process did not start, or died; replace the pool.
        """
        try:
            future = pool.schedule(
                decoder.within,
                args=[self._timeout_s, task, data, *args],
                timeout=self._timeout_s,
            )
        except RuntimeError as error:
            raise BrokenProcessPool(str(error)) from None
        try:
            result: Result = future.result(START_S + self._timeout_s)
            return result
        except TimeoutError:
            if not future.done():
                raise BrokenProcessPool("the decoder does not answer") from None
            log.warning("decoding took too long", bytes=len(data), timeout_s=self._timeout_s)
            detail = message(
                "decode_time",
                "decoding the picture takes more than {seconds:g} seconds",
                seconds=self._timeout_s,
            )
            raise PictureError(detail) from None
        except ProcessExpired as error:
            log.warning("a decoder died", bytes=len(data), exit_code=error.exitcode)
            raise _crashed() from None

    def _start(self) -> ProcessPool:
        pool = ProcessPool(
            max_workers=1,
            initializer=decoder.enter,
            initargs=[self._memory_bytes],
            context=multiprocessing.get_context("spawn"),  # web has threads, and may not fork
        )
        assert pool.active  # this starts it
        return pool

    def _replace(self, pool: ProcessPool) -> ProcessPool:
        log.warning("replacing a decoder")
        _end(pool)
        try:
            return self._start()
        except BrokenProcessPool as error:  # no memory, or no process ids, are left
            log.error("no decoder can be started", reason=str(error.__cause__))
            raise BusyError from None


def _end(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()


def _crashed() -> PictureError:
    return PictureError(
        message("decode_crash", "the picture cannot be decoded: it crashes the decoder")
    )
