"""How long jobs will take, from how long such jobs have taken.

Jobs in flight share the engine, so two things are kept apart. A job's *share* is the engine's time
that went into it: the shares of all jobs add up to the time on the clock. What the caller waits for
is the *clock*, on which the shares of everybody in flight pass.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from darkroom.schemas import ResolvedRequest


@dataclass(frozen=True)
class Kind:
    """What a speed is true of.

    Attributes:
        model: by name.
        pixels: width × height of an image.
        in_flight: images in flight together, as a power of two: on a GPU a step of four images
            takes hardly longer than one of a single image, so each one's share is smaller.
    """

    model: str
    pixels: int
    in_flight: int


@dataclass(frozen=True)
class Speed:
    """A measurement, in shares.

    Attributes:
        step_seconds: of one denoising step of one image.
        other_seconds: of everything else, an image: preparation, decoding, storing.
    """

    step_seconds: float
    other_seconds: float

    def blended(self, newer: "Speed", weight: float = 0.3) -> "Speed":
        """A moving average: `newer` counts for `weight`."""
        return Speed(
            self.step_seconds + weight * (newer.step_seconds - self.step_seconds),
            self.other_seconds + weight * (newer.other_seconds - self.other_seconds),
        )


@dataclass(frozen=True)
class Work:
    """What is left of a job that has not ended: `step` of `steps` denoising steps are done."""

    request: ResolvedRequest
    step: int
    steps: int


class Estimator:
    """Predicts from measured speeds.

    Args:
        speeds: by what they are true of.
        max_in_flight: jobs that are worked on together.
    """

    def __init__(self, speeds: Mapping[Kind, Speed], max_in_flight: int) -> None:
        self._speeds = speeds
        self._models = {kind.model for kind in speeds}
        self._max_in_flight = max_in_flight
        self._found: dict[Kind, Speed] = {}

    def seconds(self, queue: Sequence[Work]) -> list[float | None]:
        """From now to the end of each job, by the clock, if nobody else comes.

        Images in flight get equal parts of the engine's time. When a job ends, the next one takes
        its place and the parts change.

        Args:
            queue: the jobs in flight, then those that wait, in the order of their turns.

        Returns:
            A number a job; None from the first one on whose model was never measured.
        """
        jobs = list(takewhile(lambda job: job.request.model in self._models, queue))
        ends: list[float | None] = [None] * len(queue)
        waiting = deque(range(len(jobs)))
        left: dict[int, float] = {}  # by job in flight, the part of its work still to do
        now = 0.0
        while waiting or left:
            while waiting and len(left) < self._max_in_flight:
                left[waiting.popleft()] = 1.0
            images = sum(jobs[index].request.num_images for index in left)
            clock = {index: part * self._clock(jobs[index], images) for index, part in left.items()}
            passed = min(clock.values())
            now += passed
            for index, seconds in clock.items():
                if seconds <= passed:
                    ends[index] = now
                    del left[index]
                else:
                    left[index] *= 1 - passed / seconds
        return ends

    def _clock(self, job: Work, images: int) -> float:
        """From now to a job's end by the clock, if so many images stayed in flight."""
        request = job.request
        speed = self._speed(Kind(request.model, request.width * request.height, images))
        steps = max(0, job.steps - job.step)
        share = steps * speed.step_seconds + request.num_images * speed.other_seconds
        return share * images / request.num_images

    def _speed(self, kind: Kind) -> Speed:
        """Of the nearest kind measured, by pixels and then by company; scaled by the pixels."""
        if kind not in self._found:
            nearest = min(
                (measured for measured in self._speeds if measured.model == kind.model),
                key=lambda measured: (
                    abs(math.log(measured.pixels / kind.pixels)),
                    abs(math.log(measured.in_flight / kind.in_flight)),
                ),
            )
            larger, speed = kind.pixels / nearest.pixels, self._speeds[nearest]
            self._found[kind] = Speed(larger * speed.step_seconds, larger * speed.other_seconds)
        return self._found[kind]


def power_of_two(images: float) -> int:
    """The one nearest to a mean number of images, at least 1."""
    return int(2 ** round(math.log2(max(1.0, images))))


def expected_steps(request: ResolvedRequest) -> int:
    """Denoising steps over all images; strength leaves the first ones out, as in diffusers."""
    strength = 1.0 if request.strength is None else request.strength
    each = min(int(request.num_inference_steps * strength), request.num_inference_steps)
    return max(1, each) * request.num_images
