"""A real database with a clock and ids of the test's own, and a dispatcher over it."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from darkroom.config import QueueSettings
from darkroom.destinations import Destination
from darkroom.engine.base import EngineEvent
from darkroom.queue.doorbell import Doorbell
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.queue.worker import Dispatcher
from darkroom.storage.database import Database
from darkroom.storage.files import Files, FolderFiles
from darkroom.storage.records import DEFAULT_URGENCY, NewJob, NewUpload
from tests.engine.conftest import request
from tests.queue.scripted import ScriptedEngine

ME = "local"


class Clock:
    """Time of day and time that passes.

    Attributes:
        now: seconds since the epoch; time passes when it is moved on.
        set_by: how far somebody has set the time of day forward.
    """

    now = 1_000_000.0
    set_by = 0.0

    def __call__(self) -> float:
        return self.now + self.set_by

    def monotonic(self) -> float:
        """The time that nobody sets."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(opened: Database, clock: Clock) -> Store:
    numbers = count(1)
    return Store(opened, clock, lambda: f"job{next(numbers)}")


Hire = Callable[[str], Leases]


@pytest.fixture
def hire(opened: Database, clock: Clock) -> Hire:
    """Workers by name, on the test's clocks."""
    return lambda name: Leases(
        opened, name, lease_s=30, max_attempts=3, clock=clock, monotonic=clock.monotonic
    )


@pytest.fixture
def worker(hire: Hire) -> Leases:
    return hire("w")


Play = Callable[..., None]


@pytest.fixture
def play(worker: Leases, clock: Clock, tmp_path: Path) -> Play:
    """Runs the dispatcher over an engine that says what it is told, until its jobs are over.

    `between` is called with the dispatcher in every tick, `pulse` in every turn, and `waits` before
    it waits for a ring, with the seconds that it waits at most.
    """

    def run(
        *ticks: list[EngineEvent],
        tick_s: float = 0.0,
        files: Files | None = None,
        between: Callable[[Dispatcher], None] = lambda _: None,
        pulse: Callable[[Dispatcher], None] = lambda _: None,
        waits: Callable[[Dispatcher, float], None] = lambda _, __: None,
        **settings: float,
    ) -> None:
        def work() -> None:
            clock.now += tick_s
            between(dispatcher)

        engine = ScriptedEngine(ticks, work)

        class Bell(Doorbell):
            def wait(self, timeout_s: float) -> bool:
                waits(dispatcher, timeout_s)
                return super().wait(timeout_s)

        with Bell() as bell:
            dispatcher = Dispatcher(
                leases=worker,
                files=files or FolderFiles(tmp_path / "images"),
                engine=engine,
                bell=bell,
                ring_web=lambda: None,
                settings=QueueSettings.model_validate({"poll_s": 0.01, **settings}),
                device="cpu",
                max_in_flight=4,
                pulse=lambda: pulse(dispatcher),
                clock=clock,
            )
            engine.on_idle = dispatcher.stop
            dispatcher.run()

    return run


def new_job(
    client: str = ME,
    key: str | None = None,
    fingerprint: str = "f",
    urgency: int = DEFAULT_URGENCY,
    collapses: bool = False,
    is_retry: bool = False,
    wanted_s: float | None = None,
    uploads: tuple[NewUpload, ...] = (),
    webhook: Destination | None = None,
    **fields: Any,
) -> NewJob:
    """A small one."""
    asked = request(**fields)
    return NewJob(
        client,
        client,
        asked,
        asked.workload,
        uploads,
        fingerprint,
        key,
        urgency=urgency,
        collapses=collapses,
        is_retry=is_retry,
        wanted_s=wanted_s,
        webhook=webhook,
    )


def accept(store: Store, client: str = ME, **fields: Any) -> str:
    """Put a small job in the queue; its id."""
    job, _ = store.accept(new_job(client, **fields))
    return job.id


def upload_of(name: str, size: int = 1) -> NewUpload:
    """The record of an upload."""
    return NewUpload(name, "0" * 64, 8, 8, size)
