"""A real Prometheus that watches a real server, set up by the files in `deploy/monitoring`."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.programs import program
from tests.serving import free_port
from tests.waiting import PATIENCE_S, eventually

MONITORING = Path(__file__).parent.parent.parent / "deploy" / "monitoring"


class Prometheus:
    """A running one."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        response = self._http.get(f"/api/v1/{path}", params=parameters)
        response.raise_for_status()  # while it starts it answers 503, in plain text
        answer = response.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result

    def wait_for(self, condition: Callable[["Prometheus"], bool]) -> None:
        """Until it is fulfilled; an answer that cannot be had yet fulfils nothing."""

        def fulfilled() -> bool:
            with suppress(httpx2.TransportError, httpx2.HTTPStatusError):
                return condition(self)
            return False

        eventually(fulfilled, every_s=0.1)


@contextmanager
def prometheus(target_folder: Path, folder: Path) -> Iterator[Prometheus]:
    """Prometheus with our configuration, but for the places and a quicker pace.

    Args:
        target_folder: with the files that `write_target` wrote.
        folder: for what it keeps.
    """
    config = (MONITORING / "prometheus.yml").read_text()
    for said, meant in (
        ("/run/darkroom", str(target_folder)),
        ("rules.yml", str(MONITORING / "rules.yml")),
        ("_interval: 15s", "_interval: 1s"),
    ):
        assert said in config
        config = config.replace(said, meant)
    path = folder / "prometheus.yml"
    path.write_text(config)
    port = free_port()
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program("prometheus"), *_options(path, folder / "series", port)],
            stdout=output,
            stderr=output,
        )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            started = Prometheus(http)
            started.wait_for(lambda one: bool(one.query("up")))
            yield started
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _options(config: Path, series: Path, port: int) -> list[str]:
    """Those of docker-compose.yml."""
    compose = yaml.safe_load((MONITORING.parent.parent / "docker-compose.yml").read_text())
    said = "\n".join(compose["services"]["prometheus"]["command"])
    for pattern, meant in (
        (r"(?<==)/etc/prometheus/prometheus\.yml$", str(config)),
        (r"(?<==)/prometheus$", str(series)),
        (r"(?<=:)\$\{PROMETHEUS_PORT:-\d+\}$", str(port)),
    ):
        said, found = re.subn(pattern, meant, said, flags=re.MULTILINE)
        assert found == 1
    return said.split("\n")


def promtool(*arguments: str) -> str:
    """What promtool says when it is content."""
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_target(data_dir: Path, folder: Path, *under: str, **environment: str) -> None:
    """Write the files that Prometheus reads, as the one-shot service does.

    Args:
        data_dir: of the server.
        folder: where Prometheus looks.
        under: a command that takes another.
        environment: the server's settings, as `DARKROOM_*` variables.
    """
    subprocess.run(
        [*under, sys.executable, MONITORING / "prometheus_token.py", folder],
        env={**os.environ, "DARKROOM_DATA_DIR": str(data_dir), **environment},
        check=True,
    )


def metrics_in(expression: str) -> set[str]:
    """The names of ours in PromQL."""
    return set(re.findall(r"\bdarkroom_\w+", expression))
