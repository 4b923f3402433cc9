"""Heartbeat of the worker's loop, and the two watchdogs that end a worker without one.

Inside the worker a watchdog in C (faulthandler) ends the process and prints where it is, even if it
is stuck in a native call that holds the interpreter's lock. The supervisor watches from outside,
which also finds a process that is stopped or frozen.
"""

import contextlib
import faulthandler
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

EVERY_S = 1.0
STARTING = 0.0  # no beat yet
STARTING_S = 600.0  # to load the default model and measure it: a large one from a slow disk is long


class Pulse:
    """The worker's heartbeat. Before the first beat the worker is starting.

    The modification time of a file is the time of the last beat on the monotonic clock, which all
    processes of a machine share and nobody sets. Nothing is written into the file, so that a full
    disk does not look like a hang. Where the file system cannot store such times (FAT begins in
    1980) there is no file, and only the watchdog inside works.

    Args:
        path: of the file.
        stall_timeout_s: the process ends after this time without a beat.
        starting_s: the same until the first beat.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        path: Path,
        stall_timeout_s: float,
        starting_s: float = STARTING_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._stall_timeout_s = stall_timeout_s
        self._clock = clock
        self._beaten_at = float("-inf")
        path.touch()
        os.utime(path, (STARTING, STARTING))
        if path.stat().st_mtime != STARTING:
            path.unlink()
        _end_in(max(stall_timeout_s, starting_s))

    def beat(self) -> None:
        """Record that the loop runs. Cheap: most calls only read the clock."""
        now = self._clock()
        if now - self._beaten_at < EVERY_S:
            return
        self._beaten_at = now
        _end_in(self._stall_timeout_s)
        with contextlib.suppress(OSError):
            os.utime(self._path, (now, now))

    def __enter__(self) -> "Pulse":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        faulthandler.cancel_dump_traceback_later()


def _end_in(seconds: float) -> None:
    """Set the time, instead of the last one, to print every thread's stack and exit with 1."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)


def is_beating(path: Path, stall_timeout_s: float, now: float) -> bool:
    """Whether the last beat was less than `stall_timeout_s` ago; false for a starting worker.

    Args:
        path: of the pulse's file.
        stall_timeout_s: how long ago the last beat may be.
        now: monotonic.
    """
    try:
        beaten_at = path.stat().st_mtime
    except OSError:
        return False
    # A beat in the future is from before a reboot.
    return STARTING < beaten_at <= now and now - beaten_at <= stall_timeout_s + 2 * EVERY_S


class Watch:
    """Watches a worker's pulse from another process.

    Args:
        path: of the pulse's file.
        stall_timeout_s: a worker without a beat for this time hangs.
        starting_s: the same until the first beat.
    """

    def __init__(self, path: Path, stall_timeout_s: float, starting_s: float = STARTING_S) -> None:
        self._path = path
        # The watchdog inside comes first, because it prints where the worker hangs.
        self._stall_timeout_s = stall_timeout_s + 2 * EVERY_S
        self._starting_s = max(stall_timeout_s, starting_s) + 2 * EVERY_S
        self._looked_at = float("-inf")
        self._awake_at = float("-inf")

    def silent_s(self, started_at: float, now: float) -> float | None:
        """Seconds without a beat if that is too long, else None.

        Call it at least every second. After a longer pause the whole machine may have been
        suspended, so the worker gets its full time again.

        Args:
            started_at: when the worker was started, monotonic.
            now: monotonic.
        """
        if now - self._looked_at > EVERY_S:
            self._awake_at = now
        self._looked_at = now
        try:
            beaten_at = self._path.stat().st_mtime
        except OSError:
            return None  # it has just started, or the file system cannot store the time
        beating = started_at < beaten_at <= now
        allowed = self._stall_timeout_s if beating else self._starting_s
        silent = now - max(self._awake_at, started_at, beaten_at if beating else STARTING)
        return silent if silent > allowed else None
