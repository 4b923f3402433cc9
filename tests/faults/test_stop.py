"""SIGTERM, whenever it comes: all processes end in order, with exit status 0, and soon."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from darkroom.config import Settings
from darkroom.ops.supervisor import stop_notice
from darkroom.queue.store import Store
from darkroom.responses import JobStatus
from darkroom.storage import database
from darkroom.storage.database import Database
from tests.queue.conftest import accept
from tests.serving import RunningServer, running
from tests.waiting import PATIENCE_S, eventually

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


def test_ctrl_c_says_what_it_waits_for_and_a_second_one_hands_the_jobs_back(
    tmp_path: Path,
) -> None:
    """A caller of A1111's gets no half-developed picture for its answer."""
    long = {"prompt": "a fox", "steps": 150, "batch_size": 8, "width": 128, "height": 128}
    for_ever = {"DARKROOM_QUEUE__SHUTDOWN_TIMEOUT_S": "3600"}
    with running(tmp_path, **for_ever) as server, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(server.http.post, "/sdapi/v1/txt2img", json=long)
        job = server.submit(num_inference_steps=150, num_images=8)
        next(event for event in server.events(job["id"]) if event["event"] == "progress")
        with httpx2.Client(base_url=server.url, timeout=120) as other:
            shown = "/sdapi/v1/progress"
            eventually(lambda: other.get(shown).json()["current_image"] is not None)

        server.process.send_signal(signal.SIGINT)
        server.wait_to_say("stopping: 2 jobs get 3600 s (Ctrl-C again to hand them back now)")
        answer = waiting.result(PATIENCE_S)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "images" not in answer.json()
        assert server.process.poll() is None

        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0, server.log.read_text()

    with opened(tmp_path) as store:
        jobs, _ = store.jobs(None, before=None, limit=5, status=None)
        assert [(job.status, job.attempts) for job in jobs] == [(JobStatus.QUEUED, 0)] * 2


def test_the_notice_is_a_sentence_for_whoever_reads_it() -> None:
    settings = Settings()

    assert stop_notice(0, settings, by_person=True) == "stopping"
    assert stop_notice(1, settings, by_person=True) == (
        "stopping: 1 job gets 10 s (Ctrl-C again to hand it back now)"
    )
    assert stop_notice(5, settings, by_person=False) == "stopping: 5 jobs get 10 s"


@pytest.mark.slow
@pytest.mark.parametrize("process", ["web", "worker"])
def test_each_process_alone(tmp_path: Path, process: str) -> None:
    ready = "/healthz" if process == "web" else None
    with running(tmp_path, process=process, ready=ready, **SHORT) as server:
        if process == "worker":
            server.wait_to_say("loading model")
        stop(server)
