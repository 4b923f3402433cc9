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
from darkroom.ops.watchdog import Watch, allowed_silence_s

log = structlog.get_logger()

PR_SET_PDEATHSIG = 1  # prctl(2)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
STEADY_S = 30.0  # a process that ran this long had not failed at its start
GRACE_S = 5.0  # on top of the server's own shutdown time
ABORT_S = 2.0  # for a process that hangs to print where


class PortTakenError(DarkroomError, OSError):
    """Another program listens on the address."""


def check_port(host: str, port: int) -> None:
    """Check that this process could listen, else raise PortTakenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTakenError(f"cannot listen on {host} port {port}: {error.strerror}") from None


def supervise(settings: Settings, arguments: list[str]) -> None:
    """Keep web and worker running until SIGTERM or SIGINT. Both get these command-line options."""
    stopping = threading.Event()
    program = [sys.executable, "-m", "darkroom"]
    watch = Watch(settings.pulse_path, allowed_silence_s(settings))
    children = [
        _Child("web", [*program, "web", "--no-notice", *arguments]),
        _Child("worker", [*program, "worker", *arguments], watch),
    ]

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        while not stopping.wait(0.05):
            for child in children:
                child.look(time.monotonic())
    finally:
        running = [child.process for child in children if child.process is not None]
        _end(running, settings.queue.shutdown_timeout_s + GRACE_S)
        log.info("stopped")


def _end(processes: list[subprocess.Popen[bytes]], timeout_s: float) -> None:
    """Stop processes; kill those that take too long."""
    deadline = time.monotonic() + timeout_s
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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

    def look(self, now: float) -> None:
        """End it if it hangs, note that it died, and start it when it is time."""
        if self.process is not None:
            self._end_if_it_hangs(self.process, now)
            if self.process.poll() is not None:
                log.error("died, restarting it", child=self.name, code=self.process.returncode)
                steady = now - self.started_at > STEADY_S
                longer = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self.pause_s))
                self.pause_s = FIRST_PAUSE_S if steady else longer
                self.start_at = now + self.pause_s
                self.process = None
        if self.process is None and now >= self.start_at:
            self._start()

    def _start(self) -> None:
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which ends them in order
            preexec_fn=_die_with_parent,
        )
        log.info("started", child=self.name, pid=self.process.pid)

    def _end_if_it_hangs(self, process: subprocess.Popen[bytes], now: float) -> None:
        if self.watch is None or process.poll() is not None:
            return
        silent_s = self.watch.silent_s(self.started_at, now)
        if silent_s is None:
            return
        log.error("hangs, ending it", child=self.name, pid=process.pid, silent_s=silent_s)
        process.send_signal(signal.SIGABRT)  # prints where it is; a stopped process cannot
        try:
            process.wait(ABORT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in a driver
                process.wait(ABORT_S)


def _die_with_parent() -> None:
    """Run in the child before exec: have it ended when the supervisor dies, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
