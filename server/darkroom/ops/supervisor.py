"""`darkroom serve`: web and worker as two processes, each started again when it dies."""

import contextlib
import ctypes
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from types import FrameType

import structlog

from darkroom.config import Settings
from darkroom.errors import DarkroomError
from darkroom.ops.watchdog import Watch

log = structlog.get_logger()

PR_SET_PDEATHSIG = 1  # prctl(2)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
STEADY_S = 30.0  # a process that ran this long had not failed at its start
GRACE_S = 5.0  # on top of the server's own shutdown time
LAST_WORDS_S = 2.0  # for a process that hangs to say where


class PortTakenError(DarkroomError, OSError):
    """Somebody else listens there."""


def check_port(host: str, port: int) -> None:
    """See whether we can listen.

    Raises:
        PortTakenError: no.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTakenError(f"cannot listen on {host} port {port}: {error.strerror}") from None


def _die_with_parent() -> None:
    """In the child, before exec: end when the supervisor is killed, however it is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class _Child:
    """A process that is to be there."""

    name: str
    command: list[str]
    watch: Watch | None = None
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    pause_s: float = 0.0
    start_at: float = 0.0

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C comes to us alone; we end them in order
            preexec_fn=_die_with_parent,
        )
        log.info("started", child=self.name, pid=self.process.pid)

    def look(self, now: float) -> None:
        """Notice that it hangs or is dead; start it (again) when it is time."""
        self._end_if_it_hangs(now)
        if self.process is not None and self.process.poll() is not None:
            log.error("died, starting it again", child=self.name, code=self.process.returncode)
            steady = now - self.started_at > STEADY_S
            self.pause_s = FIRST_PAUSE_S if steady else self._longer_pause()
            self.start_at = now + self.pause_s
            self.process = None
        if self.process is None and now >= self.start_at:
            self.start()

    def _end_if_it_hangs(self, now: float) -> None:
        if self.process is None or self.watch is None or self.process.poll() is not None:
            return
        silent_s = self.watch.silent_s(self.started_at, now)
        if silent_s is None:
            return
        log.error("hangs, ending it", child=self.name, pid=self.process.pid, silent_s=silent_s)
        self.process.send_signal(signal.SIGABRT)  # it says where it is; one that is stopped cannot
        try:
            self.process.wait(LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in a driver
                self.process.wait(LAST_WORDS_S)

    def _longer_pause(self) -> float:
        return min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self.pause_s))


class Supervisor:
    """Keeps web and worker running until told to stop.

    Args:
        settings: for the shutdown time.
        arguments: command-line options that both children get.
    """

    def __init__(self, settings: Settings, arguments: list[str]) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        allowed_s = settings.engine.stall_timeout_s + settings.queue.poll_s
        pulse = Watch(settings.pulse_path, allowed_s)
        self._children = [
            _Child(name, [sys.executable, "-m", "darkroom", *command, *arguments], watch)
            for name, command, watch in (
                ("web", ("web", "--no-notice"), None),
                ("worker", ("worker",), pulse),
            )
        ]

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""

        def stop(_signal: int, _frame: FrameType | None) -> None:
            self._stopping.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        try:
            while not self._stopping.wait(0.05):
                now = time.monotonic()
                for child in self._children:
                    child.look(now)
        finally:
            self._end()

    def _end(self) -> None:
        """Ask all to stop; end those that do not."""
        deadline = time.monotonic() + self._settings.queue.shutdown_timeout_s + GRACE_S
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.info("stopped")
