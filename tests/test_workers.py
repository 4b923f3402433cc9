"""Several workers on one data folder: their names, their parts of the machine, their restarts."""

import signal
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from darkroom import config
from darkroom.config import Settings, WorkerSettings
from darkroom.ops import gpus
from darkroom.ops.gpus import GpuCount
from tests.serving import RunningServer, running
from tests.waiting import eventually


def test_workers_are_called_after_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "box a.example.org")
    settings = Settings()

    names = [settings.of_worker(number).worker_name for number in range(3)]

    assert names == ["box-a.example.org-0", "box-a.example.org-1", "box-a.example.org-2"]


def test_the_first_worker_has_the_name_of_the_settings() -> None:
    settings = Settings(worker=WorkerSettings(name="attic"))

    assert settings.worker_name == "attic"
    assert settings.of_worker(1).worker_name == "attic-1"
    assert settings.of_worker(1).pulse_path.name == "worker-attic-1.pulse"


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a b", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("DARKROOM_WORKER__NAME", name)
    with pytest.raises(ValueError, match="name"):
        config.load({})


def test_each_worker_sees_one_of_the_gpus_that_the_server_sees() -> None:
    assert gpus.only(1, {})["CUDA_VISIBLE_DEVICES"] == "1"
    seen = {"CUDA_VISIBLE_DEVICES": "GPU-aa,GPU-bb"}
    assert gpus.only(0, seen)["CUDA_VISIBLE_DEVICES"] == "GPU-aa"
    assert gpus.only(1, seen)["CUDA_VISIBLE_DEVICES"] == "GPU-bb"


@pytest.mark.slow
def test_gpus_are_counted_in_another_process() -> None:
    count = GpuCount()
    eventually(lambda: count.read() is not None)
    assert (count.read() or 0) >= 0
    count.stop()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with two workers, on SQLite."""
    environment = {
        "DARKROOM_WORKERS": "2",
        "DARKROOM_WORKER__NAME": "box",
        "DARKROOM_ENGINE__DEVICE": "cpu",
        "DARKROOM_ENGINE__MAX_JOBS_IN_FLIGHT": "2",
        "OMP_NUM_THREADS": "1",
    }
    with running(tmp_path_factory.mktemp("pair"), **environment) as server:
        eventually(lambda: len(ready_workers(server)) == 2, about=server.log.read_text)
        yield server


def ready_workers(server: RunningServer) -> set[str]:
    answer = server.http.get("/readyz").json()
    return {each["id"] for each in answer.get("workers", ()) if each["ready"]}


def workers_of(server: RunningServer) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(server.process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if "worker" in process.cmdline():
                found.append(process)
    return found


@pytest.mark.slow
def test_two_workers_of_one_folder_share_the_jobs(pair: RunningServer) -> None:
    jobs = [pair.submit(num_inference_steps=8)["id"] for _ in range(8)]

    ended = [pair.finished(job) for job in jobs]
    assert {job["status"] for job in ended} == {"succeeded"}
    assert {job["worker"] for job in ended} == {"box", "box-1"}


@pytest.mark.slow
def test_a_worker_that_dies_is_started_again_and_the_other_goes_on(pair: RunningServer) -> None:
    first, second = workers_of(pair)
    began = pair.log.read_text().count("worker=box-1")
    second.send_signal(signal.SIGKILL)

    assert pair.finished(pair.submit()["id"])["status"] == "succeeded"
    pair.wait_to_say("worker=box-1", times=began + 1)  # its row says that it is ready until then
    assert first.is_running()
    assert ready_workers(pair) == {"box", "box-1"}


@pytest.mark.slow
def test_no_second_worker_gets_the_name_of_one_that_runs(pair: RunningServer) -> None:
    environment = {"DARKROOM_WORKER__NAME": "box-1"}
    with running(pair.data_dir, process="worker", ready=None, **environment) as second:
        eventually(lambda: second.process.poll() == 1, about=second.log.read_text)
    assert "a worker called box-1 already works" in second.log.read_text()
