"""The state of a job between `submit` and its last event."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from darkroom.engine.base import EngineJob
from darkroom.engine.sample import Key, Sample
from darkroom.requests import Lora, Txt2Img


class Resumable(Protocol):
    """Work that shares no calls, and makes a job's images one after the other."""

    exclusive: bool  # other jobs of the same model wait until this one has ended
    images: int
    index: int  # of the current image
    steps: int  # over all images

    @property
    def step(self) -> int:
        """Finished steps over all images."""

    def resume(self) -> Image.Image | None:
        """Do one more step; returns the picture when its image is done. Raises its failure."""

    def close(self) -> None:
        """Stop at the current step and free what it holds."""


@dataclass
class ActiveJob:
    """A job in flight. It has `samples`, one per image, or is `unbatched`, once it is prepared."""

    job: EngineJob
    samples: list[Sample] = field(default_factory=list)
    shape: tuple[int, ...] = ()  # (C, h, w) of the samples' latents
    unbatched: Resumable | None = None  # a pipeline of diffusers' own, or an upscaler
    decoded: set[int] = field(default_factory=set)  # indices sent as `ImageReady`
    isolated: bool = False  # a call that it was in failed, so it shares none any more
    previewed_at: float = float("-inf")  # seconds on the engine's clock

    @property
    def prepared(self) -> bool:
        return bool(self.samples) or self.unbatched is not None

    @property
    def model(self) -> str:
        return self.job.request.model

    @property
    def loras(self) -> tuple[Lora, ...]:
        request = self.job.request
        return request.loras if isinstance(request, Txt2Img) else ()

    @property
    def exact(self) -> bool:
        return isinstance(self.job.request, Txt2Img) and self.job.request.exact

    @property
    def key(self) -> Key:
        """Jobs with equal keys may share calls."""
        isolated = self.exact or self.isolated or self.unbatched is not None
        return Key(self.model, self.shape, self.loras, self.job.id if isolated else None)

    @property
    def steps(self) -> int:
        return sum(len(sample.timesteps) for sample in self.samples)

    @property
    def step(self) -> int:
        return sum(sample.step for sample in self.samples)

    def undenoised(self) -> list[Sample]:
        return [sample for sample in self.samples if not sample.denoised]

    def undecoded(self) -> Iterator[Sample]:
        """Samples that are denoised and not yet decoded."""
        return (s for s in self.samples if s.denoised and s.index not in self.decoded)
