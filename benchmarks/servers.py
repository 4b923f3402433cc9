"""Servers as processes: ours and the baseline, started, paused while the other is measured, ended.

Two servers on one machine compete even when one is idle, so a server that is not being measured is
stopped with SIGSTOP; it keeps its model and goes on where it was.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
MIB = 2**20

# A worker that is paused while another is measured does not hang.
PAUSABLE = {"DARKROOM_ENGINE__STALL_TIMEOUT_S": "86400"}
NO_PREVIEWS = {"DARKROOM_ENGINE__PREVIEW_EVERY_S": "1e9"}


@dataclass(frozen=True, eq=False)
class Server:
    """A running server.

    Attributes:
        http: a client of it; threads may share it.
        process: the one that was started; the others are its children.
        began: when, on the monotonic clock.
        alive: a path that answers 200 whenever the server listens.
        log: what it wrote.
    """

    http: httpx2.Client
    process: psutil.Process
    began: float
    alive: str
    log: Path

    def until(self, path: str, timeout_s: float = START_TIMEOUT_S) -> float:
        """Wait for a 200; seconds since the start.

        Raises:
            RuntimeError: the server ended, or is not there in time. Says what it wrote.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.process.status() != psutil.STATUS_ZOMBIE:
            try:
                if self.http.get(path).status_code == 200:
                    return time.monotonic() - self.began
            except httpx2.TransportError:
                pass
            time.sleep(0.01)
        raise RuntimeError(f"{path} did not answer:\n{self.log.read_text()}")

    def child(self, name: str) -> psutil.Process:
        """The `web` or `worker` process, by its command line.

        Raises:
            LookupError: there is none.
        """
        for process in self.process.children():
            if name in process.cmdline():
                return process
        raise LookupError(f"no {name} process")

    def pause(self) -> None:
        for process in self._family():
            process.suspend()

    def resume(self) -> None:
        """Let it go on, the one that watches the others last.

        gunicorn ends a child that has given no sign of life for 30 s. A child gives one each time
        round its loop, so after two answers it has, and the first process may wake.
        """
        watching, *watched = self._family()
        for process in watched:
            process.resume()
        for _ in range(2):
            self.until(self.alive)
        watching.resume()

    @contextmanager
    def awake(self) -> Iterator[None]:
        """A turn of a paused server."""
        self.resume()
        try:
            yield
        finally:
            self.pause()

    def _family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def darkroom(**environment: str) -> Iterator[Server]:
    """A fresh `darkroom serve` with an empty data folder, in fp32 like the baseline.

    Args:
        environment: settings, as `DARKROOM_*` variables.
    """
    settings = {"DARKROOM_ENGINE__DTYPE": "float32", **PAUSABLE, **environment}
    with started(["darkroom", "serve"], settings, "/healthz") as server:
        yield server


@contextmanager
def baseline(*arguments: str) -> Iterator[Server]:
    """A fresh `benchmarks/baseline.py`, with these arguments."""
    with started(["benchmarks.baseline", *arguments], {}, "/healthz") as server:
        yield server


@contextmanager
def started(module: list[str], environment: dict[str, str], alive: str) -> Iterator[Server]:
    """A process of a module, with an empty data folder unless `environment` names one.

    Args:
        module: its name and arguments, for `python -m`.
        alive: see `Server`.
    """
    port = free_port()
    command = [sys.executable, "-m", *module, "--port", str(port)]
    ours = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "DARKROOM_DATA_DIR": "data",
    }
    with listening(command, port, ours | environment, alive) as server:
        yield server


@contextmanager
def listening(
    command: list[str], port: int, environment: dict[str, str], alive: str
) -> Iterator[Server]:
    """A process of a program that serves HTTP at a port of this machine.

    Args:
        environment: beside ours.
        alive: see `Server`.
    """
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as name:
        folder = Path(name)
        log = folder / "log"
        began = time.monotonic()
        # The folder is the working directory too, so that nobody's config.yaml is read.
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | environment,
                stdout=output,
                stderr=output,
            )
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        try:
            with httpx2.Client(
                base_url=f"http://127.0.0.1:{port}", timeout=600, limits=limits
            ) as http:
                yield Server(http, psutil.Process(process.pid), began, alive, log)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, to a paused one too. A killed parent takes its children along in both servers."""
    if process.poll() is None:
        parent = psutil.Process(process.pid)
        family = [parent, *parent.children(recursive=True)]
        process.terminate()
        for member in family:
            member.resume()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def memory(process: psutil.Process) -> float:
    """MiB of a process and its children; pages shared between them are counted once (PSS)."""
    family = [process, *process.children(recursive=True)]
    return float(sum(member.memory_full_info().pss for member in family)) / MIB


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
