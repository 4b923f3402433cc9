"""`darkroom serve`: runs web and worker as two processes, and restarts each when it dies."""

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
ABORT_S = 2.0  # for a process that hangs to print where


class PortTakenError(DarkroomError, OSError):
    """Another program listens on the address."""


def check_port(host: str, port: int) -> None:
    """Check that this process could listen.

    Raises:
        PortTakenError: it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTakenError(f"cannot listen on {host} port {port}: {error.strerror}") from None


def _die_with_parent() -> None:
    """Run in the child before exec: have it ended when the supervisor dies, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class _Child:
    """A process that is kept running."""

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
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which ends them in order
            preexec_fn=_die_with_parent,
        )
        log.info("started", child=self.name, pid=self.process.pid)

    def look(self, now: float) -> None:
        """Check whether it hangs or died, and start it when it is time."""
        self._end_if_it_hangs(now)
        if self.process is not None and self.process.poll() is not None:
            log.error("died, restarting it", child=self.name, code=self.process.returncode)
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
        self.process.send_signal(signal.SIGABRT)  # prints where it is; a stopped process cannot
        try:
            self.process.wait(ABORT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in a driver
                self.process.wait(ABORT_S)

    def _longer_pause(self) -> float:
        return min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self.pause_s))


class Supervisor:
    """Keeps web and worker running until a signal.

    Args:
        settings: of the server.
        arguments: command-line options of both children.
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
        """Run until SIGTERM or SIGINT."""

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
        """Stop all children; kill those that take too long."""
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
