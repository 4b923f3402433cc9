"""How long jobs will take, from measured speeds: remaining work ÷ the engine's throughput.

Work is counted in seconds of the engine. Jobs in flight share the engine, and the worker charges
every second to the jobs it was spent on, so the engine does one second of work per second, however
many jobs share it. Of several workers each has an engine, and the jobs in flight are spread evenly.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """The conditions under which a speed was measured.

    `in_flight` is the number of images in flight together, as a power of two: on a GPU a step of
    four images takes hardly longer than a step of one, so the work per image is less.
    """

    model: str
    pixels: int
    in_flight: int


@dataclass(frozen=True)
class Speed:
    """Seconds of the engine per step of one image, and per image for everything else."""

    step_seconds: float
    other_seconds: float

    def blended(self, newer: "Speed", weight: float = 0.3) -> "Speed":
        """The moving average in which `newer` has this weight."""
        return Speed(
            self.step_seconds + weight * (newer.step_seconds - self.step_seconds),
            self.other_seconds + weight * (newer.other_seconds - self.other_seconds),
        )


@dataclass(frozen=True, slots=True)
class Work:
    """The remaining work of some jobs of one model and size, summed over the jobs.

    `steps` are the denoising steps to do, over all images; `total_steps` has those done too.
    """

    model: str
    pixels: int
    images: float
    steps: float
    total_steps: float
    jobs: int = 1

    @property
    def weight(self) -> float:
        """One job's relative part of the engine; `engine.batching` prefers short jobs."""
        return self.images / math.sqrt(max(1.0, self.total_steps) * self.jobs)


class Estimator:
    """Predicts when jobs end, as if jobs ran in `slots` that each get a part of the engine.

    Args:
        speeds: what was measured.
        running: the jobs in flight.
        queued: by client; a client's queued jobs of one model and size are one `Work`.
        slots: jobs in flight together from now on.
        refill: how likely it is that a slot is filled again when no queued job is left, 0 to 1.
        engines: that the slots belong to.
    """

    def __init__(
        self,
        speeds: Mapping[Kind, Speed],
        running: Sequence[Work],
        queued: Mapping[str, Sequence[Work]],
        slots: int,
        refill: float,
        engines: int = 1,
    ) -> None:
        self._speeds = speeds
        self._models = {kind.model for kind in speeds}
        self._slots = max(1, slots, len(running))
        self._refill = refill
        self._engines = engines = max(1, min(engines, self._slots))
        # The part of the other jobs in flight that shares a job's engine.
        others = max(1, self._slots - 1)
        self._beside = 1.0 if engines == 1 else (self._slots / engines - 1) / others
        self._free = self._slots - len(running)
        rest = [work for works in queued.values() for work in works] or running
        jobs = max(1, sum(work.jobs for work in rest))
        self._mean_weight = sum(work.weight * work.jobs for work in rest) / jobs
        self._running_weight = sum(work.weight for work in running)
        mean_images = sum(work.images for work in rest) / jobs
        self._images = sum(work.images for work in running) + self._free * mean_images
        self._jobs = {client: sum(work.jobs for work in works) for client, works in queued.items()}
        self._queued_s = {client: self._seconds(works) for client, works in queued.items()}
        self._running_s = self._seconds(running)
        self._all_s = (self._running_s or 0.0) + sum(filter(None, self._queued_s.values()))
        self._running = running
        self._running_ends = [self._running_end(work) for work in running]

    def running_ends(self) -> list[float | None]:
        """Seconds until each running job ends; None if its model was never measured."""
        return [
            None if end is None else self._expected(end, self._seconds([work]) or 0.0)
            for end, work in zip(self._running_ends, self._running, strict=True)
        ]

    def queued_end(self, work: Work, ahead: Mapping[str, int]) -> float | None:
        """Seconds until a queued job ends.

        Args:
            ahead: by client, the number of queued jobs that start before it.

        Returns:
            None if its model or that of a job before it was never measured.
        """
        own_s = self._seconds([work])
        ahead_s = 0.0
        for client, count in ahead.items():
            queued_s = self._queued_s[client]
            if queued_s is None:
                return None
            ahead_s += queued_s * count / self._jobs[client] / self._engines
        if own_s is None or self._running_s is None:
            return None
        position = sum(ahead.values())
        if position < self._free:
            start_s = 0.0
            others = self._running_weight + (self._free - 1) * self._mean_weight
        else:
            ends = [end for end in self._running_ends if end is not None]
            mean_s = sum(ends) / self._slots
            # The first slot to be free is half of the other slots' jobs earlier than all of them.
            early_s = (self._slots - 1) / 2 * ahead_s / max(1, position)
            first_s = 0.0 if self._free else min(ends)
            start_s = max(first_s, mean_s + ahead_s - early_s)
            all_weights = self._running_weight + self._free * self._mean_weight
            others = all_weights * (self._slots - 1) / self._slots
        end_s = start_s + own_s * (1 + self._beside * others / work.weight)
        return self._expected(end_s, own_s)

    def _running_end(self, work: Work) -> float | None:
        own_s = self._seconds([work])
        others = self._running_weight - work.weight + self._free * self._mean_weight
        return None if own_s is None else own_s * (1 + self._beside * others / work.weight)

    def _expected(self, end_s: float, own_s: float) -> float:
        """Between the end if no more jobs come, and the end if all slots stay filled."""
        alone_s = min(end_s, max(own_s, self._all_s / self._engines))
        return alone_s + self._refill * (end_s - alone_s)

    def _seconds(self, works: Sequence[Work]) -> float | None:
        """The engine's time for some work; None if a model was never measured."""
        if any(work.model not in self._models for work in works):
            return None
        seconds = 0.0
        for work in works:
            speed = self._speed(work.model, work.pixels)
            seconds += work.steps * speed.step_seconds + work.images * speed.other_seconds
        return seconds

    def _speed(self, model: str, pixels: int) -> Speed:
        """That of the nearest kind, by pixels and then by images in flight, scaled by pixels."""
        nearest = min(
            (kind for kind in self._speeds if kind.model == model),
            key=lambda kind: (
                abs(math.log(kind.pixels / pixels)),
                abs(math.log(kind.in_flight / max(1.0, self._images / self._engines))),
            ),
        )
        larger, speed = pixels / nearest.pixels, self._speeds[nearest]
        return Speed(larger * speed.step_seconds, larger * speed.other_seconds)


def power_of_two(images: float) -> int:
    """The power of two nearest to a mean number of images, at least 1."""
    return int(2 ** round(math.log2(max(1.0, images))))
