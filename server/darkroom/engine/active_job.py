"""The state of a job between `submit` and its last event."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from darkroom.engine.base import EngineJob
from darkroom.engine.families.resuming import Resumable
from darkroom.engine.sample import Key, Sample
from darkroom.requests import Lora, Txt2Img


@dataclass
class ActiveJob:
    """A job in flight.

    Attributes:
        samples: one per image; empty until prepared.
        shape: (C, h, w) of the samples' latents.
        unbatched: set instead of `samples` for a pipeline of diffusers' own or an upscaler.
        decoded: indices of the images that were sent as `ImageReady`.
        isolated: it shares no call any more, because a call that it was in failed.
        previewed_at: seconds on the engine's clock.
    """

    job: EngineJob
    samples: list[Sample] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    unbatched: Resumable | None = None
    decoded: set[int] = field(default_factory=set)
    isolated: bool = False
    previewed_at: float = float("-inf")

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
        exclusive = self.job.id if isolated else None
        return Key(self.model, self.shape, self.loras, exclusive)

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
