"""Any process is killed at any moment, and no accepted job is lost."""

import hashlib
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest

from tests.serving import RunningServer, running
from tests.waiting import PATIENCE_S


def sha256(server: RunningServer, job: dict[str, object]) -> str:
    (image,) = job["images"]  # type: ignore[misc]
    return hashlib.sha256(server.http.get(image["url"]).content).hexdigest()  # type: ignore[index]


@pytest.mark.slow
def test_a_job_whose_worker_is_killed_is_finished_by_the_next_one(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        undisturbed = server.finished(server.submit(num_inference_steps=20)["id"])
        victim = server.child("worker")
        job = server.submit(num_inference_steps=20)
        events = server.events(job["id"])
        next(event for event in events if event["event"] == "progress")

        victim.send_signal(signal.SIGKILL)

        kinds = [event["event"] for event in events]  # the same stream goes on
        assert "queued" in kinds
        assert kinds[-1] == "succeeded"
        finished = server.http.get(job["url"]).json()
        assert finished["attempts"] == 2
        assert sha256(server, finished) == sha256(server, undisturbed)
        assert server.child("worker").pid != victim.pid


@pytest.mark.slow
def test_serve_goes_on_when_the_machine_can_start_processes_again(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        server.child("web").send_signal(signal.SIGKILL)
        server.wait_to_say("cannot be started, trying again")

        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
        server.wait_until_ready()
        assert server.finished(server.submit()["id"])["status"] == "succeeded"


LOSING = """
import sys
from pathlib import Path
import torch
from diffusers import UNet2DConditionModel
from darkroom.cli import main

real = UNet2DConditionModel.forward

def forward(*args, **kwargs):
    if Path(sys.argv[-1], "lost").exists():
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    return real(*args, **kwargs)

UNet2DConditionModel.forward = forward
main()
"""


@pytest.mark.slow
def test_a_job_whose_worker_lost_the_gpu_is_finished_by_the_next_one(tmp_path: Path) -> None:
    """The process ends: only a new one can use the GPU again."""
    with running(tmp_path, process="web") as server:
        command = [sys.executable, "-c", LOSING, "worker", "--data-dir", str(tmp_path)]
        with subprocess.Popen(command) as worker:
            server.wait_for("/readyz")
            (tmp_path / "lost").touch()
            job = server.submit()
            assert worker.wait(PATIENCE_S) not in (0, None)
        (tmp_path / "lost").unlink()

        with running(tmp_path, process="worker", ready=None):
            assert server.finished(job["id"])["status"] == "succeeded"


@pytest.mark.slow
def test_who_waits_gets_the_picture_although_the_worker_was_killed(tmp_path: Path) -> None:
    with running(tmp_path) as server, httpx2.Client(base_url=server.url, timeout=120) as other:
        answers: list[httpx2.Response] = []
        waiting = threading.Thread(
            target=lambda: answers.append(
                other.post("/txt2img", json={"prompt": "a fox", "num_inference_steps": 60})
            )
        )
        with server.http.stream("GET", "/events") as stream:
            lines = stream.iter_lines()
            next(lines)
            waiting.start()
            next(line for line in lines if line == "event: progress")
        server.child("worker").send_signal(signal.SIGKILL)
        waiting.join()

        assert answers[0].json()["status"] == "succeeded"


@pytest.mark.slow
def test_web_is_killed_and_the_job_goes_on(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        job = server.submit(num_inference_steps=40)
        web = server.child("web")
        for process in (web, *web.children()):
            process.send_signal(signal.SIGKILL)

        server.wait_until_ready()

        assert server.finished(job["id"])["status"] == "succeeded"


@pytest.mark.slow
def test_everything_is_killed_and_what_was_accepted_is_done_after_the_next_start(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as server:
        jobs = [server.submit(num_inference_steps=30, seed=seed) for seed in range(3)]
        next(e for e in server.events(jobs[0]["id"]) if e["event"] == "progress")
        children = [server.child("worker"), server.child("web")]
        children += [child for process in children for child in process.children()]
        server.process.kill()
        for process in children:
            process.send_signal(signal.SIGKILL)
        server.process.wait()

    with running(tmp_path) as server:
        finished = [server.finished(job["id"]) for job in jobs]

    assert [job["status"] for job in finished] == ["succeeded"] * 3
    files = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == sorted(f"{job['id']}-0" for job in jobs)


@pytest.mark.slow
def test_the_children_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        children = [server.child("worker"), server.child("web")]
        server.process.kill()

        for child in children:
            child.wait(PATIENCE_S)


@pytest.mark.slow
def test_a_stopped_server_hands_its_jobs_to_the_next_one(tmp_path: Path) -> None:
    with running(tmp_path, DARKROOM_QUEUE__SHUTDOWN_TIMEOUT_S="0.5") as server:
        job = server.submit(num_inference_steps=150, num_images=8)
        next(event for event in server.events(job["id"]) if event["event"] == "progress")
        server.process.terminate()
        assert server.process.wait(PATIENCE_S) == 0

    with running(tmp_path, process="web") as server:
        job = server.http.get(job["url"]).json()

    assert (job["status"], job["attempts"]) == ("queued", 0)
