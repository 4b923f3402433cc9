"""An engine that says what it is told to, for what the real one says too rarely."""

from collections import deque
from collections.abc import Callable, Iterable

from PIL import Image

from darkroom.catalog.model_entry import NumberBytes
from darkroom.engine.base import EngineEvent, EngineJob, EngineMemory, ResidentModel

PICTURE = Image.new("RGB", (8, 8), "red")


class ScriptedEngine:
    """An `Engine` whose ticks are written down.

    Args:
        ticks: the events of one tick after the other.
        work: called in every tick, to let time pass.
    """

    def __init__(
        self, ticks: Iterable[list[EngineEvent]], work: Callable[[], None] = lambda: None
    ) -> None:
        self._ticks = deque(ticks)
        self._work = work
        self._jobs: set[str] = set()
        self.on_idle: Callable[[], None] = lambda: None
        self.models: dict[str, ResidentModel] = {}  # there is room for one

    def warm_up(self) -> None: ...

    def submit(self, job: EngineJob) -> None:
        self._jobs.add(job.id)

    def cancel(self, job_id: str) -> None:
        self._jobs.discard(job_id)
        if not self._jobs:
            self.on_idle()

    def in_flight(self) -> int:
        return len(self._jobs)

    def broken(self) -> dict[str, str]:
        return {}

    def resident(self) -> dict[str, ResidentModel]:
        return self.models

    def memory(self) -> EngineMemory:
        resident = {name: model.bytes for name, model in self.models.items()}
        return EngineMemory(0, NumberBytes(4, 4), resident)

    def fits(self, model: str) -> bool:
        return not self.models or model in self.models

    def unload(self, model: str) -> bool:
        return self.models.pop(model, None) is not None

    def tick(self) -> list[EngineEvent]:
        self._work()
        return self._ticks.popleft()
