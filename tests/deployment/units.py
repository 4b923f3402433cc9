"""The server started by the commands and under the settings of its systemd units."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import yaml

from tests.serving import RunningServer, free_port
from tests.waiting import PATIENCE_S

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
UNITS = DEPLOY / "systemd"
COMMAND = "/opt/darkroom/.venv/bin/darkroom"

# Of what systemd denies, what a process can deny itself: no memory that is written and run.
DENY_WRITE_EXECUTE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE; older kernels do not know it
os.execv(sys.executable, [sys.executable, "-m", "darkroom", *sys.argv[1:]])
"""


def read(name: str) -> dict[str, list[str]]:
    """A unit's settings, all that it gives of each."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def behind_a_proxy(file: str) -> dict[str, object]:
    """The server's settings that a proxy's example asks for in its first lines."""
    said = re.findall(r"^#   (\w.*)$", (DEPLOY / file).read_text(), re.MULTILINE)
    settings: dict[str, object] = yaml.safe_load("\n".join(said))
    return settings


def _environment(unit: dict[str, list[str]], folder: Path) -> dict[str, str]:
    said = shlex.split(" ".join(unit["Environment"]))
    there = {
        "/var/lib/darkroom": str(folder / "data"),
        "/var/cache/darkroom": str(folder / "cache"),
        "/etc/darkroom/config.yaml": str(folder / "config.yaml"),
    }
    return {key: there[value] for key, value in (part.split("=", 1) for part in said)}


def _command(name: str) -> list[str]:
    unit = read(f"darkroom-{name}.service")
    command, *arguments = shlex.split(unit["ExecStart"][0])
    assert command == COMMAND
    if unit.get("MemoryDenyWriteExecute") == ["yes"]:
        return [sys.executable, "-c", DENY_WRITE_EXECUTE, *arguments]
    alone = ["unshare", "--net"] if os.getuid() == 0 else []
    assert unit["PrivateNetwork"] == ["yes"]
    return [*alone, sys.executable, "-m", "darkroom", *arguments]


@contextmanager
def running_units(
    folder: Path, settings: dict[str, object], **environment: str
) -> Iterator[RunningServer]:
    """Web and worker, each by its unit.

    Args:
        folder: for the configuration, the data and the log.
        settings: for config.yaml.
        environment: as `/etc/darkroom/environment` has it.
    """
    port = free_port()
    (folder / "data").mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({**settings, "port": port}))
    log = folder / "server.log"
    with log.open("ab") as output:
        web, worker = (
            subprocess.Popen(
                _command(name),
                cwd=folder / "data",
                stdout=output,
                stderr=output,
                env={
                    **os.environ,
                    **_environment(read(f"darkroom-{name}.service"), folder),
                    **environment,
                },
            )
            for name in ("web", "worker")
        )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx2.Client(base_url=url, timeout=120) as http:
            started = RunningServer(url, folder / "data", web, http, log)
            started.wait_until_ready()
            yield started
    finally:
        for process in (web, worker):
            process.send_signal(signal.SIGTERM)
        for process in (web, worker):
            process.wait(PATIENCE_S)
