"""Boxes on one machine: network and process namespaces of their own, joined by a bridge.

It takes root. Each box sees its own interface and its own processes, as a machine would; files and
memory are shared.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.waiting import PATIENCE_S

NETWORK = "10.77"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Bridge:
    """A network of boxes. This machine's own address in it is `address`."""

    def __init__(self) -> None:
        number = os.getpid() % 250
        self._mark = f"dr{os.getpid() % 100_000}"
        self.address = f"{NETWORK}.{number}.1"
        self._prefix = f"{NETWORK}.{number}"
        self.name = f"{self._mark}b"

    def __enter__(self) -> "Bridge":
        _ip("link", "add", self.name, "type", "bridge")
        _ip("address", "add", f"{self.address}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        return self

    def __exit__(self, *_: object) -> None:
        _ip("link", "delete", self.name)

    @contextmanager
    def namespace(self, number: int) -> Iterator[tuple[str, str]]:
        """Context with a network namespace on the bridge: its name, and its cable here."""
        space, cable = f"{self._mark}n{number}", f"{self._mark}v{number}"
        _ip("netns", "add", space)
        try:
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", cable, "master", self.name, "up")
            address = f"{self._prefix}.{10 + number}/24"
            _ip("-n", space, "address", "add", address, "dev", "eth0")
            for interface in ("eth0", "lo"):
                _ip("-n", space, "link", "set", interface, "up")
            yield space, cable
        finally:
            with suppress(subprocess.CalledProcessError):
                _ip("link", "delete", cable)
            _ip("netns", "delete", space)


@contextmanager
def bridge() -> Iterator[Bridge]:
    """Context with a network; the test is skipped where none can be made."""
    made = Bridge()
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("network namespaces take root, and the programs ip and unshare")
    try:
        made.__enter__()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network can be made here: {error.stderr.decode().strip()}")
    try:
        yield made
    finally:
        made.__exit__()


class Program:
    """A command of Darkroom's that runs until it is ended.

    Args:
        space: the network namespace that it runs in.
        hidden: whether it has processes of its own, and sees no others. Ray takes the processes of
            other machines' nodes for its own machine's, if it sees them.
    """

    def __init__(
        self,
        log: Path,
        *words: str,
        space: str | None = None,
        hidden: bool = False,
        **environment: str,
    ) -> None:
        self.log = log
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        inside = ["ip", "netns", "exec", space] if space else []
        inside += ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"] if hidden else []
        self._command = [*inside, sys.executable, "-m", "darkroom", *words]
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it, or start it again."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command, stdout=output, stderr=output, env=self._environment
            )
        return self.process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def crash(self) -> None:
        """Kill it, and start it again."""
        self.kill()
        self.start()

    def inner(self, *words: str) -> psutil.Process:
        """The one process below it with these words in its command line."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                line = " ".join(process.cmdline())
                if all(word in line for word in words):
                    return process
        raise LookupError(f"no process {words} below {self._command}")

    def stop(self) -> None:
        """End it and all below it: in order, and by force what does not end."""
        if self.process.poll() is not None:  # the kernel ends all of its namespace with it
            return
        below = psutil.Process(self.process.pid).children(recursive=True)
        # `unshare` passes no signal on.
        (below[0] if "unshare" in self._command and below else self.process).send_signal(
            signal.SIGTERM
        )
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE_S / 4)
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.kill()
        self.process.wait()


class Box:
    """A second machine: a namespace with a data folder, a cable, and `darkroom join`."""

    def __init__(self, program: Program, data_dir: Path, cable: str) -> None:
        self.program, self.data_dir, self._cable = program, data_dir, cable

    def cut_off(self) -> None:
        _ip("link", "set", self._cable, "down")

    def connect(self) -> None:
        _ip("link", "set", self._cable, "up")


@contextmanager
def joining(
    network: Bridge, folder: Path, number: int, url: str, code: str, **environment: str
) -> Iterator[Box]:
    """Context with a box that joins the server at a URL."""
    with ExitStack() as stack:
        space, cable = stack.enter_context(network.namespace(number))
        data_dir = folder / f"box-{number}"
        words = ("join", url, code, "--name", f"box-{number}", "--data-dir", str(data_dir))
        program = Program(
            folder / f"box-{number}.log", *words, space=space, hidden=True, **environment
        )
        stack.callback(program.stop)
        yield Box(program, data_dir, cable)
