"""The whole server from outside: start, first picture, memory."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil

from benchmarks.figure import Figure

STARTS = 3
PICTURES = 10
MIB = 2**20


@contextmanager
def started() -> Iterator[tuple[psutil.Process, httpx2.Client, float]]:
    """A fresh `darkroom serve`, the moment it was started at, and a client."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "darkroom", "serve", "--port", str(port)],
            env={**os.environ, "DARKROOM_DATA_DIR": str(data_dir)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
                yield psutil.Process(process.pid), http, began
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def until(http: httpx2.Client, path: str) -> None:
    while True:
        try:
            if http.get(path).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.01)


def memory(process: psutil.Process) -> float:
    """MiB of a process and its children; pages shared between them are counted once (PSS)."""
    family = [process, *process.children(recursive=True)]
    return sum(member.memory_full_info().pss for member in family) / MIB


def measure() -> list[Figure]:
    """Start the server several times; the last one also develops pictures."""
    healthy, ready, pictures, web, worker = [], [], [], [], []
    for number in range(STARTS):
        with started() as (process, http, began):
            until(http, "/healthz")
            healthy.append(time.monotonic() - began)
            until(http, "/readyz")
            ready.append(time.monotonic() - began)
            for seed in range(PICTURES if number == STARTS - 1 else 1):
                asked = time.monotonic()
                body = {"prompt": "a red fox", "seed": seed, "num_inference_steps": 20}
                http.post("/txt2img", json=body).raise_for_status()
                if number == STARTS - 1:
                    pictures.append(time.monotonic() - asked)
            children = {name: child for child in process.children() for name in child.cmdline()}
            web.append(memory(children["web"]))
            worker.append(memory(children["worker"]))
    return [
        Figure("web answers `/healthz` after start", tuple(healthy), "s", 2),
        Figure("model loaded after start (`/readyz`)", tuple(ready), "s", 15),
        Figure("txt2img, 20 steps, over HTTP", tuple(pictures), "s", 3),
        Figure("memory of web", tuple(web), "MiB", 150 * 10**6 / MIB),
        Figure("memory of the worker", tuple(worker), "MiB", 1.5 * 10**9 / MIB),
    ]
