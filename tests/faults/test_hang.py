"""A worker that is there and does nothing is found out, ended and replaced."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.ops.watchdog import STARTING_S, Pulse, Watch
from tests.faults.test_kill import sha256
from tests.serving import running

STALL_S = 3.0

STUCK = """
import sys, time
from pathlib import Path
from darkroom.ops import logs
from darkroom.config import QueueSettings
from darkroom.engine.base import Started
from darkroom.storage import database
from darkroom.storage.database import Database
from darkroom.queue.worker import Dispatcher
from darkroom.queue.doorbell import Doorbell
from darkroom.storage.files import FolderFiles
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.ops.watchdog import Pulse
from tests.queue.conftest import accept
from tests.queue.scripted import ScriptedEngine

def stuck_in_a_driver():
    if ticks.pop():
        time.sleep(3600)

ticks = [True, False]
folder = Path(sys.argv[1])
logs.configure("console", "worker")
database.migrate(folder / "darkroom.db")
opened = Database(folder / "darkroom.db")
job = accept(Store(opened))
with Pulse(folder / "worker.pulse", 5) as pulse, Doorbell() as bell:
    Dispatcher(
        leases=Leases(opened, "w", lease_s=30, max_attempts=3),
        files=FolderFiles(folder / "images"),
        engine=ScriptedEngine([[Started(job, 6)], []], stuck_in_a_driver),
        bell=bell,
        ring_web=lambda: None,
        settings=QueueSettings(),
        device="cpu",
        max_in_flight=4,
        pulse=pulse.beat,
    ).run()
"""


@pytest.mark.slow
def test_a_worker_that_is_stopped_is_replaced_and_its_job_done(tmp_path: Path) -> None:
    with running(tmp_path, DARKROOM_ENGINE__STALL_TIMEOUT_S=str(STALL_S)) as server:
        undisturbed = server.finished(server.submit(num_inference_steps=60)["id"])
        victim = server.child("worker")
        job = server.submit(num_inference_steps=60)
        next(event for event in server.events(job["id"]) if event["event"] == "progress")

        victim.send_signal(signal.SIGSTOP)

        finished = server.finished(job["id"])
        assert finished["status"] == "succeeded"
        assert sha256(server, finished) == sha256(server, undisturbed)
        assert server.child("worker").pid != victim.pid
        assert "hangs, ending it" in server.log.read_text()


@pytest.mark.slow
def test_an_engine_that_is_stuck_ends_its_process_and_says_where(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", STUCK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert result.returncode == 1
    assert "Timeout (" in result.stderr
    assert "in stuck_in_a_driver" in result.stderr


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def look(watch: Watch, started_at: float, clock: Clock, seconds: float) -> float | None:
    """Look ten times a second while time passes; what is seen at the end."""
    seen = None
    for _ in range(round(10 * seconds)):
        clock.now += 0.1
        seen = watch.silent_s(started_at, clock.now)
    return seen


def test_a_worker_that_beats_is_left_alone_and_one_that_stops_is_not(
    tmp_path: Path, clock: Clock
) -> None:
    watch = Watch(tmp_path / "pulse", 5)
    with Pulse(tmp_path / "pulse", 60, clock=clock) as pulse:
        for _ in range(20):
            clock.now += 1
            pulse.beat()
            assert watch.silent_s(1000, clock.now) is None

        assert look(watch, 1000, clock, 6) is None
        assert look(watch, 1000, clock, 2) == pytest.approx(8)


def test_a_worker_that_loads_its_model_has_longer(tmp_path: Path, clock: Clock) -> None:
    watch = Watch(tmp_path / "pulse", 5)
    with Pulse(tmp_path / "pulse", 60, clock=clock):
        assert look(watch, 1000, clock, STARTING_S) is None
        assert look(watch, 1000, clock, 5) is not None


def test_the_pulse_of_an_earlier_worker_does_not_count(tmp_path: Path, clock: Clock) -> None:
    watch = Watch(tmp_path / "pulse", 5)
    with Pulse(tmp_path / "pulse", 60, clock=clock) as pulse:
        clock.now += 10
        pulse.beat()

    assert look(watch, clock.now + 1, clock, 60) is None  # the next one is starting


def test_a_pulse_of_before_the_machine_was_started_does_not_count(
    tmp_path: Path, clock: Clock
) -> None:
    with Pulse(tmp_path / "pulse", 60, clock=clock) as pulse:
        pulse.beat()
    clock.now = 10.0  # the monotonic clock begins again

    assert look(Watch(tmp_path / "pulse", 5), 9.0, clock, 60) is None


def test_who_slept_does_not_take_the_worker_for_dead(tmp_path: Path, clock: Clock) -> None:
    watch = Watch(tmp_path / "pulse", 5)
    with Pulse(tmp_path / "pulse", 60, clock=clock) as pulse:
        clock.now += 1
        pulse.beat()
        assert watch.silent_s(1000, clock.now) is None
        clock.now += 3600  # everything was stopped, the supervisor too

        assert watch.silent_s(1000, clock.now) is None
        assert look(watch, 1000, clock, 8) is not None
