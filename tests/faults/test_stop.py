"""SIGTERM, whenever it comes: all processes end in order, with exit status 0, and soon."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from darkroom.queue.store import Store
from darkroom.responses import JobStatus
from darkroom.storage import database
from darkroom.storage.database import Database
from tests.queue.conftest import accept
from tests.serving import RunningServer, running

pytestmark = pytest.mark.slow

SHUTDOWN_S = 1.0
GRACE_S = 5.0  # what the supervisor adds to it before it kills
BUSY_S = 30.0  # the machine may be
SHORT = {"DARKROOM_QUEUE__SHUTDOWN_TIMEOUT_S": str(SHUTDOWN_S)}


@contextmanager
def opened(data_dir: Path) -> Iterator[Store]:
    """The queue of a server that does not run."""
    found = Database(data_dir / "darkroom.db")
    yield Store(found)
    found.close()


def stop(server: RunningServer, times: int = 1) -> None:
    """Ask the server to end, and see that it and its children do."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    began = time.monotonic()
    for _ in range(times):
        server.process.send_signal(signal.SIGTERM)

    assert server.process.wait(60) == 0, server.log.read_text()
    assert time.monotonic() - began < SHUTDOWN_S + GRACE_S + BUSY_S
    _, alive = psutil.wait_procs(children, BUSY_S)
    assert not alive


@pytest.mark.slow
def test_while_the_model_is_loaded_with_a_job_waiting(tmp_path: Path) -> None:
    database.migrate(tmp_path / "darkroom.db")
    with opened(tmp_path) as store:
        job_id = accept(store)

    with running(tmp_path, ready="/healthz", **SHORT) as server:
        stop(server)

    with opened(tmp_path) as store:
        job = store.job(job_id, None)
        assert job is not None
        assert job.status is JobStatus.QUEUED


def test_twice_in_a_row_with_jobs_running_and_waiting(tmp_path: Path) -> None:
    with running(tmp_path, DARKROOM_ENGINE__MAX_JOBS_IN_FLIGHT="1", **SHORT) as server:
        jobs = [server.submit(num_inference_steps=150, num_images=8) for _ in range(2)]
        next(event for event in server.events(jobs[0]["id"]) if event["event"] == "progress")

        stop(server, times=2)

    with opened(tmp_path) as store:
        after = [store.job(job["id"], None) for job in jobs]
        assert [job and (job.status, job.attempts) for job in after] == [(JobStatus.QUEUED, 0)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("process", ["web", "worker"])
def test_each_process_alone(tmp_path: Path, process: str) -> None:
    ready = "/healthz" if process == "web" else None
    with running(tmp_path, process=process, ready=ready, **SHORT) as server:
        if process == "worker":
            server.wait_to_say("loading model")
        stop(server)
