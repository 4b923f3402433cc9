"""An S3 server of the tests' own (moto's, as a process), and empty buckets on it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import httpx2

from tests.serving import free_port
from tests.waiting import PATIENCE_S, eventually

KEY, SECRET = "darkroom", "a-secret-of-the-tests"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Server:
    """A running server. It keeps what is stored in memory.

    Attributes:
        url: its endpoint.
    """

    def __init__(self, process: subprocess.Popen[bytes], host: str, port: int) -> None:
        self.url = f"http://{host}:{port}"
        self._process = process
        self._numbers = count(1)

    @property
    def options(self) -> dict[str, Any]:
        """`storage.files_options` for this server."""
        return {"endpoint_url": self.url, "key": KEY, "secret": SECRET}

    def bucket(self) -> str:
        """The URL of a new bucket."""
        name = f"bucket-{os.getpid()}-{next(self._numbers)}"
        httpx2.put(f"{self.url}/{name}").raise_for_status()
        return f"s3://{name}"

    def stop(self) -> None:
        """Have it answer nothing, as behind a cut cable, until `go_on`."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stay_away(self, seconds: float) -> None:
        """Have it answer nothing for so long."""
        self.stop()
        time.sleep(seconds)  # what is tested is that so long a time goes by
        self.go_on()


@contextmanager
def running(host: str = "127.0.0.1") -> Iterator[Server]:
    """Context with a server, on an address of this machine."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT},
    )

    def listens() -> bool:
        with suppress(OSError), socket.create_connection((host, port), 1):
            return True
        if process.poll() is not None:
            raise RuntimeError(f"the S3 server ended with {process.returncode}")
        return False

    try:
        eventually(listens, every_s=0.1)
        yield Server(process, host, port)
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(PATIENCE_S)
