"""`darkroom serve`: runs web and the workers as processes, and restarts each when it dies."""

import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import FrameType

import structlog

from darkroom.config import Settings
from darkroom.errors import DarkroomError
from darkroom.ops import gpus
from darkroom.ops.logs import print_line
from darkroom.ops.watchdog import Watch, allowed_silence_s
from darkroom.responses import JobStatus

log = structlog.get_logger()

PR_SET_PDEATHSIG = 1  # prctl(2)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
STEADY_S = 30.0  # a process that ran this long had not failed at its start
GRACE_S = 5.0  # on top of the server's own shutdown time
ABORT_S = 2.0  # for a process that hangs to print where
LOOK_S = 0.05  # between two looks at the processes
COUNT_S = 0.5  # to wait for the database, when the running jobs are counted


class CannotListenError(DarkroomError, OSError):
    """This process cannot listen on the address; `advice` says what to do."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        super().__init__(f"cannot listen on {host} port {port}: {error.strerror}")
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            self.advice = "choose another --host: an address of this machine, or 0.0.0.0 for all"
        elif error.errno == errno.EACCES:
            self.advice = "choose another --port: the ones below 1024 are for root"
        else:
            self.advice = "choose another --port, or stop the program that listens there"


def check_port(host: str, port: int) -> None:
    """Check that this process could listen, else raise CannotListenError."""
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise CannotListenError(host, port, error) from None


@contextmanager
def early_worker(settings: Settings) -> "Iterator[Child]":
    """Context with the first worker, which imports libraries while `serve` checks the settings.

    It does not touch the data folder meanwhile. It is killed if it still runs at the end. If it
    cannot be started, `supervise` tries again, and says so.
    """
    worker = _worker(settings, 0)
    with contextlib.suppress(OSError):
        worker.launch("--imports-first")
    try:
        yield worker
    finally:
        if worker.process is not None and worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


def supervise(settings: Settings, worker: "Child") -> None:
    """Keep web and the workers, of which one may run already, running until SIGTERM or SIGINT.

    Then the jobs that run have `queue.shutdown_timeout_s` to end, or until the second signal.
    """
    if worker.process is not None:
        worker.log_start()
    signals: list[int] = []
    children = [Child("web", _command(settings, "web", "--no-notice")), worker]
    others = OtherWorkers(settings)

    def stop(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        while not signals:
            for child in children:
                child.look(time.monotonic())
            children += others.new()
            time.sleep(LOOK_S)
        by_person = signals[0] == signal.SIGINT
        print_line(stop_notice(_running_jobs(settings), settings, by_person=by_person))
    finally:
        others.stop()
        running = [child.process for child in children if child.process is not None]
        timeout_s = settings.queue.shutdown_timeout_s + GRACE_S
        end(running, timeout_s, hurries=lambda: len(signals) > 1)
        log.info("stopped")


class OtherWorkers:
    """The workers besides the first one, once it is known how many, and on which GPU each works."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._are_made = settings.workers == 1
        self._counting: gpus.GpuCount | None = None
        if not self._are_made and settings.engine.device != "cpu":
            with contextlib.suppress(OSError):
                self._counting = gpus.GpuCount()

    def new(self) -> "list[Child]":
        """All of them, once; none at other calls."""
        if self._are_made:
            return []
        found = self._counting.read() if self._counting else 0
        if found is None:
            return []
        self._are_made = True
        asked = self._settings.workers
        number = max(1, found) if asked == "auto" else asked
        log.info("workers", number=number, gpus=found)
        return [_worker(self._settings, each, found) for each in range(1, number)]

    def stop(self) -> None:
        """Stop counting."""
        if self._counting is not None:
            self._counting.stop()


def _worker(settings: Settings, number: int, count: int = 1) -> "Child":
    """One of the workers. Of several, each sees one of so many GPUs, which several may share."""
    variables = {}
    if settings.workers != 1:
        variables = gpus.only(number % max(1, count))
    watch = Watch(settings.of_worker(number).pulse_path, allowed_silence_s(settings))
    command = _command(settings, "worker", *(("--number", str(number)) if number else ()))
    return Child(f"worker {number}" if number else "worker", command, watch, variables)


def _command(settings: Settings, *words: str) -> list[str]:
    """The command line of a child; the configuration file is in the environment."""
    where = ["--host", settings.host, "--port", str(settings.port)]
    where += ["--data-dir", str(settings.data_dir)]
    return [sys.executable, "-m", "darkroom", *words, *where]


def stop_notice(jobs: int, settings: Settings, *, by_person: bool) -> str:
    """What a person or a log is told when so many jobs run and the server stops."""
    if not jobs:
        return "stopping"
    get = "1 job gets" if jobs == 1 else f"{jobs} jobs get"
    them = "it" if jobs == 1 else "them"
    hint = f" (Ctrl-C again to hand {them} back now)" if by_person else ""
    return f"stopping: {get} {settings.queue.shutdown_timeout_s:g} s{hint}"


def _running_jobs(settings: Settings) -> int:
    """How many jobs run; 0 if the database cannot say so at once."""
    # Here, so that the worker is started before SQLAlchemy is imported.
    from sqlalchemy import func, select

    from darkroom.storage.database import Database, DatabaseUnavailableError, place_of
    from darkroom.storage.tables import JobRow

    with closing(Database(place_of(settings), COUNT_S)) as database:
        try:
            with database.read() as session:
                is_running = JobRow.status == JobStatus.RUNNING
                return session.scalar(select(func.count()).where(is_running)) or 0
        except DatabaseUnavailableError:
            return 0


def end(
    processes: list[subprocess.Popen[bytes]], timeout_s: float, hurries: Callable[[], bool]
) -> None:
    """Stop processes, at once if somebody hurries; kill those that take too long."""
    deadline = time.monotonic() + timeout_s
    hurried = False
    for process in processes:
        process.terminate()
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        if hurries() and not hurried:
            hurried = True
            deadline = min(deadline, time.monotonic() + GRACE_S)
            for process in processes:
                process.send_signal(signal.SIGINT)  # a second SIGTERM could be lost in the first
        time.sleep(LOOK_S)
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


@dataclass
class Child:
    """A process that is kept running."""

    name: str
    command: list[str]
    watch: Watch | None = None
    variables: Mapping[str, str] = field(default_factory=dict)  # besides this process's own
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
                if now - self.started_at > STEADY_S:
                    self.pause_s = 0.0
                self._start_later(now)
                self.process = None
        if self.process is None and now >= self.start_at:
            try:
                self.launch()
            except OSError as error:  # no memory, or too many processes: both may pass
                log.error("cannot be started, trying again", child=self.name, error=str(error))
                self._start_later(now)
            else:
                self.log_start()

    def _start_later(self, now: float) -> None:
        self.pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self.pause_s))
        self.start_at = now + self.pause_s

    def launch(self, *options: str) -> None:
        """Start it, with these options for this time.

        Raises:
            OSError: the machine cannot start a process now.
        """
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            [*self.command, *options],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self.variables} if self.variables else None,
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which ends them in order
            preexec_fn=die_with_parent,
        )

    def log_start(self) -> None:
        log.info("started", child=self.name, pid=self.process and self.process.pid)

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


def die_with_parent() -> None:
    """Run in the child before exec: have it ended when the supervisor dies, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
