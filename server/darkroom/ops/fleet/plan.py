"""Which workers should run: as many as the queue needs, between the bounds of the settings."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from darkroom.config import FleetSettings


class Having(Protocol):
    """What is known of a worker: see `WorkerInfo`."""

    @property
    def alive(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    @property
    def jobs_in_flight(self) -> int: ...
    @property
    def models(self) -> Collection[str]: ...


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
    places: Sequence[Slot], running: Collection[str], workers: Mapping[str, Having], wanted: int
) -> tuple[list[Slot], list[str]]:
    """Which places get a worker, and which running workers are stopped, by their names.

    A worker whose box is cut off counts for nothing and is left alone: it may come back. So is one
    that is told to drain. None is stopped that works, or that alone has a model.

    Args:
        places: all that there are.
        running: names of the workers that are kept running.
        workers: what is known of all workers of the queue, by name.
        wanted: how many should run.
    """
    drained = {name for name, about in workers.items() if about.draining}
    usable = [slot for slot in places if slot.worker not in drained]
    here = [slot.worker for slot in usable if slot.worker in running]
    free = [slot for slot in usable if slot.worker not in running]
    stopped: list[str] = []
    for name in reversed(here):
        if len(here) - len(stopped) <= wanted:
            break
        about = workers.get(name)
        if about is None or about.jobs_in_flight:  # one that starts is not known yet
            continue
        others = {
            model
            for other, having in workers.items()
            if other not in (name, *stopped) and having.alive and not having.draining
            for model in having.models
        }
        if others.issuperset(about.models):
            stopped.append(name)
    return free[: max(0, wanted - len(here))], stopped
