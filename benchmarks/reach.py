"""The server files that take part in one warm `POST /txt2img`: `python -m benchmarks.reach`.

Web and worker run with a trace function that notes the file of every function that is entered
between two signals, and the files of the functions that run when the first one comes. So a file
counts when a line of it runs while the request is served, whatever was imported before.
"""

import os
import signal
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import load
from benchmarks.servers import ROOT, Server, darkroom

PACKAGE = ROOT / "server" / "darkroom"
FOLDER = "DARKROOM_REACH_FOLDER"
TOGGLE = signal.SIGRTMIN + 7
TIMEOUT_S = 30.0

# Python runs a module of this name at its start.
SITECUSTOMIZE = f"""
import os, signal, sys, threading

seen, noting = set(), False

def trace(frame, event, argument):
    if noting:
        seen.add(frame.f_code.co_filename)

def toggle(number, frame):
    global noting
    noting = not noting
    if noting:
        for top in sys._current_frames().values():
            while top is not None:
                seen.add(top.f_code.co_filename)
                top = top.f_back
    target = os.path.join(os.environ["{FOLDER}"], f"{{os.getpid()}}." + ("on" if noting else "off"))
    with open(target + ".new", "w") as file:
        file.write("\\n".join(seen))
    os.rename(target + ".new", target)

signal.signal({int(TOGGLE)}, toggle)
sys.settrace(trace)
threading.settrace(trace)
"""


def files_reached() -> dict[str, list[str]]:
    """The files by process, `web` and `worker`, relative to the package.

    Raises:
        TimeoutError: a process does not answer the signal.
    """
    with tempfile.TemporaryDirectory(prefix="darkroom-reach-") as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
        os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        with darkroom(**{FOLDER: name}) as server:
            server.until("/readyz")
            for seed in range(2):
                load.develop(server.http, load.txt2img(steps=4, seed=seed))
            processes = {kind: server.child(kind) for kind in ("web", "worker")}
            _toggle(processes, folder, "on")
            load.develop(server.http, load.txt2img(steps=4, seed=2))
            _wait_for_end(server)
            _toggle(processes, folder, "off")
            return {
                kind: _ours((folder / f"{process.pid}.off").read_text())
                for kind, process in processes.items()
            }


def _toggle(processes: dict[str, psutil.Process], folder: Path, state: str) -> None:
    for process in processes.values():
        process.send_signal(TOGGLE)
    deadline = time.monotonic() + TIMEOUT_S
    while not all((folder / f"{process.pid}.{state}").exists() for process in processes.values()):
        if time.monotonic() > deadline:
            raise TimeoutError("a process does not answer the signal")
        time.sleep(0.05)


def _wait_for_end(server: Server) -> None:
    """Until the newest job has ended: the picture may be sent before the worker is done with it."""
    while server.http.get("/jobs?limit=1").json()["jobs"][0]["status"] != "succeeded":
        time.sleep(0.05)


def _ours(names: str) -> list[str]:
    paths = (Path(name) for name in names.splitlines())
    return sorted(str(path.relative_to(PACKAGE)) for path in paths if path.is_relative_to(PACKAGE))


def main() -> None:
    reached = files_reached()
    for kind, files in reached.items():
        print(f"{kind}: {len(files)}", *files, sep="\n  ")
    together = {file for files in reached.values() for file in files}
    total = sum(1 for _ in PACKAGE.rglob("*.py"))
    print(f"together: {len(together)} of {total} files")


if __name__ == "__main__":
    main()
