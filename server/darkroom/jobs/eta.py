"""How long a job will take, from how long such jobs have taken."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from darkroom.schemas import ResolvedRequest


@dataclass(frozen=True)
class Speed:
    """A measurement.

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


class Estimator:
    """Predicts from measured speeds.

    Args:
        speeds: by model and pixels (width × height).
    """

    def __init__(self, speeds: dict[tuple[str, int], Speed]) -> None:
        self._speeds = speeds

    def seconds(self, request: ResolvedRequest, steps_done: int = 0) -> float | None:
        """From here to the end of one job that has the box to itself; None if never measured."""
        pixels = request.width * request.height
        speed, measured_pixels = self._nearest(request.model, pixels)
        if speed is None:
            return None
        larger = pixels / measured_pixels
        steps = max(0, expected_steps(request) - steps_done)
        return larger * (steps * speed.step_seconds + request.num_images * speed.other_seconds)

    def queue_seconds(self, ahead: Iterable[tuple[ResolvedRequest, int]]) -> float | None:
        """To the end of all of these, each with the steps it has done; None if one is unknown."""
        total = 0.0
        for request, steps_done in ahead:
            seconds = self.seconds(request, steps_done)
            if seconds is None:
                return None
            total += seconds
        return total

    def _nearest(self, model: str, pixels: int) -> tuple[Speed | None, int]:
        measured = [size for name, size in self._speeds if name == model]
        if not measured:
            return None, pixels
        nearest = min(measured, key=lambda size: abs(math.log(size / pixels)))
        return self._speeds[model, nearest], nearest


def expected_steps(request: ResolvedRequest) -> int:
    """Denoising steps over all images; strength leaves the first ones out, as in diffusers."""
    strength = 1.0 if request.strength is None else request.strength
    each = min(int(request.num_inference_steps * strength), request.num_inference_steps)
    return max(1, each) * request.num_images
