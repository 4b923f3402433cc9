"""How long storing a large picture holds up another client's job."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from benchmarks import ours
from benchmarks.figure import Figure
from benchmarks.suite import Effort, Suite, order
from darkroom.config import EngineSettings, QueueSettings
from darkroom.engine.base import EngineEvent, ImageReady
from darkroom.engine.engine import DiffusersEngine
from darkroom.queue import doorbell, picture_writer
from darkroom.queue.doorbell import Doorbell
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.queue.worker import Dispatcher
from darkroom.storage import database
from darkroom.storage.database import Database
from darkroom.storage.files import FolderFiles
from darkroom.storage.records import NewJob

LARGE, SIDE, GUIDANCE = 2048, 128, 3.0
STEPS, OTHER_STEPS = 4, 40
BESIDE, WAITING = picture_writer.MAX_WAITING, 1

HOW = f"""\
A worker runs two jobs of two clients, one of {STEPS} steps and one of {OTHER_STEPS}. The picture of
the first is enlarged to {LARGE}×{LARGE}, as an upscaler would do, and stored as PNG. The figure is
the longest time between two calls of the engine. In turns with a worker that makes no call while a
picture is stored."""


class Pauses:
    """Runs a dispatcher's engine, enlarges one client's pictures, and times what lies between.

    Attributes:
        longest_s: between the end of a tick and the beginning of the next.
    """

    def __init__(self, engine: DiffusersEngine, stop: Callable[[], None]) -> None:
        self._tick, self._engine, self._stop = engine.tick, engine, stop
        self._ended: float | None = None
        self.longest_s = 0.0

    def tick(self) -> list[EngineEvent]:
        if self._ended is not None:
            self.longest_s = max(self.longest_s, time.perf_counter() - self._ended)
        events = [self._enlarged(event) for event in self._tick()]
        self._ended = time.perf_counter()
        if not self._engine.in_flight():
            self._stop()
        return events

    def _enlarged(self, event: EngineEvent) -> EngineEvent:
        if isinstance(event, ImageReady) and event.job_id == "large":
            return replace(event, picture=event.picture.resize((LARGE, LARGE)))
        return event


def measure(effort: Effort) -> list[Figure]:
    pauses: dict[int, list[float]] = {BESIDE: [], WAITING: []}
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        engine = ours.engine(EngineSettings(dtype="float32"), Path(folder) / "models")
        engine.warm_up()
        for turn in range(effort.pictures):
            for max_waiting in order((BESIDE, WAITING), turn):
                with tempfile.TemporaryDirectory(dir=folder) as data_dir:
                    pauses[max_waiting].append(_longest_pause(engine, Path(data_dir), max_waiting))
    what = f"longest pause of a job's steps while a picture of {LARGE}×{LARGE} is stored"
    return [
        Figure(f"{what} beside them", tuple(pauses[BESIDE]), "s"),
        Figure(f"{what} between them", tuple(pauses[WAITING]), "s"),
    ]


def _longest_pause(engine: DiffusersEngine, data_dir: Path, max_waiting: int) -> float:
    path = data_dir / "darkroom.db"
    database.migrate(path)
    opened = Database(path)
    ids = iter(("large", "other"))
    store = Store(opened, new_id=lambda: next(ids))
    for client, steps in ("ann", STEPS), ("bob", OTHER_STEPS):
        asked = ours.request(steps=steps, guidance_scale=GUIDANCE, side=SIDE)
        store.accept(NewJob(client, client, asked, asked.workload, (), client, None))
    with (
        Doorbell(doorbell.address(data_dir, "worker")) as bell,
        patch.object(picture_writer, "MAX_WAITING", max_waiting),
    ):
        dispatcher = Dispatcher(
            leases=Leases(opened, "bench", lease_s=30, max_attempts=3),
            files=FolderFiles(data_dir / "images"),
            engine=engine,
            bell=bell,
            ring_web=lambda: None,
            settings=QueueSettings(),
            device=engine.device,
            max_in_flight=2,
        )
        pauses = Pauses(engine, dispatcher.stop)
        with patch.object(engine, "tick", pauses.tick):
            dispatcher.run()
    opened.close()
    return pauses.longest_s


SUITE = Suite("storing", "Storing pictures", HOW, measure)
