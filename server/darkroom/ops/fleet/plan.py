"""Which workers should run: as many as the queue needs, between the bounds of the settings."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from darkroom.config import FleetSettings


@dataclass(frozen=True, order=True)
class Slot:
    """A place for a worker: a GPU of a box, or the box if it has none."""

    box: str
    number: int
    on_gpu: bool = False

    @property
    def worker(self) -> str:
        """The name of the worker there."""
        return f"{self.box}-{self.number}"


def slots(boxes: Mapping[str, int]) -> list[Slot]:
    """The places on boxes, by their numbers of GPUs: first one on each box, then the others."""
    found = [
        Slot(box, number, on_gpu=gpus > 0)
        for box, gpus in boxes.items()
        for number in range(max(1, gpus))
    ]
    return sorted(found, key=lambda slot: (slot.number, not slot.on_gpu, slot.box))


class Planner:
    """Decides how many workers run. More start at once; fewer only after `fleet.idle_s`."""

    def __init__(self, settings: FleetSettings) -> None:
        self._settings = settings
        self._needed_at: dict[int, float] = {}

    def wanted(self, pending: int, places: int, now: float) -> int:
        """How many workers should run for so many jobs that wait or run. `now` is monotonic."""
        settings = self._settings
        needed = math.ceil(pending / settings.jobs_per_worker)
        for number in range(1, needed + 1):
            self._needed_at[number] = now
        lately = [number for number, at in self._needed_at.items() if now - at <= settings.idle_s]
        self._needed_at = {number: self._needed_at[number] for number in lately}
        wanted = max(settings.min_workers, *lately, 0)
        return min(wanted, settings.max_workers, places)


def changes(
    places: list[Slot], running: Collection[str], wanted: int
) -> tuple[list[Slot], list[str]]:
    """Which places get a worker, and which running workers are stopped, by their names.

    A worker whose box is cut off counts for nothing and is left alone: it may come back.
    """
    here = [slot for slot in places if slot.worker in running]
    free = [slot for slot in places if slot.worker not in running]
    return free[: max(0, wanted - len(here))], [slot.worker for slot in here[wanted:]]
