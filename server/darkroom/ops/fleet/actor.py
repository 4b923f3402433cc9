"""What Ray runs on a box for each worker: an actor that keeps `darkroom worker` as its child.

The worker is the same program as on a single box and knows nothing of Ray. The actor's process ends
when the worker does, and Ray starts both again; the worker ends when the actor's process does.
"""

import os
import signal
import subprocess
import sys
import threading
import time

from darkroom.ops.supervisor import die_with_parent

QUICK_S, PAUSE_S = 30.0, 5.0  # a worker that ended so soon is started again only after a pause


class WorkerActor:
    """A worker of a box.

    Args:
        name: of the worker, the box's with a number.
        data_dir: of the box, from the environment that Ray's node was started with.
    """

    def __init__(self, name: str) -> None:
        self._started_at = time.monotonic()
        self._stopping = False
        data_dir = os.environ["DARKROOM_DATA_DIR"]
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "darkroom", "worker", "--data-dir", data_dir],
            env=_environment(name),
            stdin=subprocess.DEVNULL,
            # Actors are made in the main thread, so the parent that it dies with is the process.
            preexec_fn=die_with_parent,
        )
        threading.Thread(target=self._end_with_worker, daemon=True).start()

    def pids(self) -> tuple[int, int]:
        """The process ids of the actor and of the worker."""
        return os.getpid(), self._worker.pid

    def stop(self) -> None:
        """Have the worker return its jobs to the queue and end."""
        self._stopping = True
        self._worker.send_signal(signal.SIGTERM)
        self._worker.wait()

    def _end_with_worker(self) -> None:
        self._worker.wait()
        if self._stopping:
            return
        if time.monotonic() - self._started_at < QUICK_S:
            time.sleep(PAUSE_S)
        os._exit(1)  # so that Ray starts the actor again


def _environment(name: str) -> dict[str, str]:
    """The box's environment without Ray's own variables; they are none of the worker's business."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return own | {"DARKROOM_WORKER__NAME": name}
