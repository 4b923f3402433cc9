"""Running the real server for a test."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

from tests.waiting import PATIENCE_S, eventually


@dataclass
class RunningServer:
    """A `darkroom serve` of a test's own.

    Attributes:
        url: base URL.
        data_dir: its database and pictures.
        process: the supervisor.
        http: a client with the base URL set.
    """

    url: str
    data_dir: Path
    process: subprocess.Popen[bytes]
    http: httpx2.Client
    log: Path

    def child(self, name: str) -> psutil.Process:
        """The running web or worker process, found as a person would: by its command line."""
        for process in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # one that is being buried
                if name in process.cmdline():
                    return process
        raise LookupError(f"no {name} process")

    def wait_until_ready(self) -> None:
        self.wait_for("/readyz")

    def wait_for(self, path: str) -> None:
        """Until that path is answered with 200."""

        def answers() -> bool:
            self._check_alive()
            with suppress(httpx2.TransportError):
                return self.http.get(path).status_code == 200
            return False

        eventually(answers, every_s=0.05, about=self.log.read_text)

    def wait_to_say(self, words: str, times: int = 1) -> None:
        """Until it has printed something, so many times. What it does next may not be done then."""

        def said() -> bool:
            found = self.log.read_text().count(words) >= times
            if not found:
                self._check_alive()
            return found

        eventually(said, about=self.log.read_text)

    def wait_until_idle(self) -> None:
        """Until nothing is left to do of what earlier tests asked for."""

        def left() -> bool:
            asked = (f"/jobs?status={status}&limit=1" for status in ("queued", "running"))
            return any(self.http.get(path).json()["jobs"] for path in asked)

        eventually(lambda: not left())

    def _check_alive(self) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended:\n{self.log.read_text()}")

    def txt2img(self, prompt: str = "a red fox", **fields: Any) -> httpx2.Response:
        body = {"prompt": prompt, "seed": 7, "num_inference_steps": 2, **fields}
        return self.http.post("/txt2img", json=body)

    def submit(self, prompt: str = "a red fox", **fields: Any) -> dict[str, Any]:
        """Ask without waiting; the accepted job."""
        body = {"prompt": prompt, "seed": 7, "num_inference_steps": 2, **fields}
        answer = self.http.post("/txt2img", json=body, headers={"prefer": "respond-async"})
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def events(self, job_id: str, after: int | None = None) -> Iterator[dict[str, Any]]:
        """The job's logged events as they are streamed, parsed: id, event, data."""
        headers = {} if after is None else {"last-event-id": str(after)}
        with self.http.stream("GET", f"/jobs/{job_id}/events", headers=headers) as answer:
            assert answer.status_code == 200, answer.read()
            parsed = parse_events(answer.iter_lines())
            yield from (event for event in parsed if event["id"] is not None)

    def finished(self, job_id: str) -> dict[str, Any]:
        """The job at its end."""
        for _ in self.events(job_id):
            pass
        job: dict[str, Any] = self.http.get(f"/jobs/{job_id}").json()
        return job


def parse_events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """A stream's events. The id is None of what the log does not keep."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield {
                "id": int(fields["id"]) if "id" in fields else None,
                "event": fields["event"],
                "data": json.loads(fields["data"]),
            }
            fields = {}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def trust(root: Path) -> ssl.SSLContext:
    """Trusts a root certificate once it is there."""
    eventually(root.exists)
    return ssl.create_default_context(cafile=root)


@contextmanager
def running(
    data_dir: Path,
    *,
    process: str = "serve",
    ready: str | None = "",
    trusting: Path | ssl.SSLContext | None = None,
    **environment: str,
) -> Iterator[RunningServer]:
    """Start the server, and end it in order.

    Args:
        data_dir: made if need be.
        process: `serve` for all of it, `web` for a server whose queue nobody works on, `worker`
            for one that nobody can ask.
        ready: the path that has to answer first; None waits for nothing.
        trusting: the root certificate of a server with TLS.
        environment: settings, as `DARKROOM_*` variables.
    """
    port = free_port()
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "server.log"
    url = f"{'http' if trusting is None else 'https'}://127.0.0.1:{port}"
    command = [sys.executable, "-m", "darkroom", process, "--host", "127.0.0.1"]
    command += ["--port", str(port)]
    with log.open("ab") as output:
        server = subprocess.Popen(
            [*command, "--data-dir", str(data_dir)],
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
        )
    try:
        verify = trust(trusting) if isinstance(trusting, Path) else trusting or True
        with httpx2.Client(base_url=url, timeout=120, verify=verify) as http:
            started = RunningServer(url, data_dir, server, http, log)
            if ready is not None:
                started.wait_for(ready or ("/readyz" if process == "serve" else "/healthz"))
            yield started
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE_S)
