"""Whether the worker and web work: the worker's heartbeat, and who watches it.

Inside the worker a watchdog in C (faulthandler) ends the process and prints where it is, even if it
is stuck in a native call that holds the interpreter's lock. The supervisor watches from outside,
which also finds a process that is stopped or frozen. Container engines and service managers ask
`web_is_well` and `worker_is_well`.
"""

import contextlib
import faulthandler
import os
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from darkroom.api.auth import tls
from darkroom.config import Settings
from darkroom.ops.discovery import local_url

EVERY_S = 1.0
STARTING = 0.0  # no beat yet
STARTING_S = 600.0  # to load the default model and measure it: a large one from a slow disk is long
ANSWER_S = 5.0


def allowed_silence_s(settings: Settings) -> float:
    """How long the worker's loop may take from one beat to the next."""
    return settings.engine.stall_timeout_s + settings.queue.poll_s


class Pulse:
    """The worker's heartbeat. Before the first beat the worker is starting.

    The modification time of a file is the time of the last beat on the monotonic clock, which all
    processes of a machine share and nobody sets. Nothing is written into the file, so that a full
    disk does not look like a hang. Where the file system cannot store such times (FAT begins in
    1980) there is no file, and only the watchdog inside works.

    The process ends after `stall_timeout_s` without a beat; until the first one it has at least
    STARTING_S. `clock` is monotonic.
    """

    def __init__(
        self, path: Path, stall_timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._stall_timeout_s = stall_timeout_s
        self._clock = clock
        self._beaten_at = float("-inf")
        path.touch()
        os.utime(path, (STARTING, STARTING))
        if path.stat().st_mtime != STARTING:
            path.unlink()
        _end_in(max(stall_timeout_s, STARTING_S))

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

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()


def _end_in(seconds: float) -> None:
    """Set the time, instead of the last one, to print every thread's stack and exit with 1."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)


class Watch:
    """Watches the pulse at `path` from another process.

    A worker hangs if it has no beat for `stall_timeout_s`, or none for STARTING_S at its start.
    """

    def __init__(self, path: Path, stall_timeout_s: float) -> None:
        self._path = path
        # The watchdog inside comes first, because it prints where the worker hangs.
        self._stall_timeout_s = stall_timeout_s + 2 * EVERY_S
        self._starting_s = max(stall_timeout_s, STARTING_S) + 2 * EVERY_S
        self._looked_at = float("-inf")
        self._awake_at = float("-inf")

    def silent_s(self, started_at: float, now: float) -> float | None:
        """Seconds without a beat if that is too long, else None. Both times are monotonic.

        Call it at least every second. After a longer pause the whole machine may have been
        suspended, so the worker gets its full time again.
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


def worker_is_well(settings: Settings) -> bool:
    """Whether the worker has loaded its model and its loop runs, in this container or another."""
    try:
        beaten_at = settings.pulse_path.stat().st_mtime
    except OSError:
        return False
    now = time.monotonic()
    # A beat in the future is from before a reboot.
    return STARTING < beaten_at <= now <= beaten_at + allowed_silence_s(settings) + 2 * EVERY_S


def web_is_well(settings: Settings) -> bool:
    """Whether web answers; the worker may be down."""
    return answers(settings, "/healthz")


def answers(settings: Settings, path: str) -> bool:
    """Whether the web process of this machine answers a path with 2xx."""
    try:
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),  # no proxy of the environment
            urllib.request.HTTPSHandler(context=tls.client_context(settings)),
        )
        with opener.open(local_url(settings) + path, timeout=ANSWER_S):
            return True
    except (OSError, HTTPException):
        return False
