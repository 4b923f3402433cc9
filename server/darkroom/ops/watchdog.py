"""A sign of life of the worker's loop, and two who look for it.

Inside the worker a watchdog in C ends the process when the loop has not turned for too long, even
one that is stuck in a native call with the interpreter's lock, and prints where. The supervisor
looks from outside, which also finds a process that is stopped or frozen as a whole.
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
    """Beats while the worker's loop turns. Before the first beat the worker is starting.

    The time of the last beat is the modification time of a file, in seconds of the monotonic clock,
    which all processes of a machine share and nobody sets. Nothing is written into it: a full disk
    does not look like a hang. Where the file system has no such times (FAT begins in 1980) there is
    no file, and only the watchdog inside looks.

    Args:
        path: of the file.
        stall_timeout_s: without a beat for so long the process ends.
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
        """Say that the loop turns. Cheap: most calls only look at the clock."""
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
    """Instead of the time set before: say where every thread is, and end with status 1."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)


def is_beating(path: Path, stall_timeout_s: float, now: float) -> bool:
    """Whether a pulse has been felt lately. One that is starting has none yet.

    Args:
        path: of the pulse's file.
        stall_timeout_s: how long ago the last beat may be.
        now: monotonic.
    """
    try:
        beaten_at = path.stat().st_mtime
    except OSError:
        return False
    # A beat from the future is from before the machine was started anew.
    return STARTING < beaten_at <= now and now - beaten_at <= stall_timeout_s + 2 * EVERY_S


class Watch:
    """Looks at a worker's pulse from outside.

    Args:
        path: of the pulse's file.
        stall_timeout_s: without a beat for so long the worker hangs.
        starting_s: the same until the first beat.
    """

    def __init__(self, path: Path, stall_timeout_s: float, starting_s: float = STARTING_S) -> None:
        self._path = path
        # The watchdog inside comes first: it says where the worker hangs.
        self._stall_timeout_s = stall_timeout_s + 2 * EVERY_S
        self._starting_s = max(stall_timeout_s, starting_s) + 2 * EVERY_S
        self._looked_at = float("-inf")
        self._awake_at = float("-inf")

    def silent_s(self, started_at: float, now: float) -> float | None:
        """How long a worker has been silent, if that is too long.

        Call it often: after a long pause it was the caller that stood still, and perhaps the worker
        with it, so the worker gets its time again.

        Args:
            started_at: when it was started, monotonic.
            now: monotonic.
        """
        if now - self._looked_at > EVERY_S:
            self._awake_at = now
        self._looked_at = now
        try:
            beaten_at = self._path.stat().st_mtime
        except OSError:
            return None  # nothing to see: it has just begun, or the file system cannot tell
        beating = started_at < beaten_at <= now
        allowed = self._stall_timeout_s if beating else self._starting_s
        silent = now - max(self._awake_at, started_at, beaten_at if beating else STARTING)
        return silent if silent > allowed else None
