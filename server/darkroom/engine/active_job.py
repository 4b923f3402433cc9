"""A job between `submit` and its last event."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from darkroom.engine.base import EngineJob
from darkroom.engine.families.resuming import Resumable
from darkroom.engine.sample import Key, Sample


@dataclass
class ActiveJob:
    """A job being worked on.

    Attributes:
        job: what to make.
        samples: one an image; empty until prepared.
        whole: instead of samples, where no UNet of ours is stepped: a pipeline is run whole, or a
            picture is made larger.
        shape: (C, h, w) of their latents.
        developed: indices of the images handed over.
        isolated: whether it works isolated from the others, because a call failed with it in it.
        previewed_at: seconds on the engine's clock.
    """

    job: EngineJob
    samples: list[Sample] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    unbatched: Resumable | None = None
    developed: set[int] = field(default_factory=set)
    isolated: bool = False
    previewed_at: float = float("-inf")

    @property
    def prepared(self) -> bool:
        return bool(self.samples) or self.unbatched is not None

    @property
    def model(self) -> str:
        return self.job.request.model

    @property
    def key(self) -> Key:
        """Whom it may share calls with."""
        request = self.job.request
        isolated = request.exact or self.isolated or self.unbatched is not None
        exclusive = self.job.id if isolated else None
        return Key(request.model, self.shape, request.loras, exclusive)

    @property
    def steps(self) -> int:
        return sum(len(sample.timesteps) for sample in self.samples)

    @property
    def step(self) -> int:
        return sum(sample.step for sample in self.samples)

    def undenoised(self) -> list[Sample]:
        return [sample for sample in self.samples if not sample.denoised]

    def undeveloped(self) -> Iterator[Sample]:
        """Images that wait for the VAE."""
        return (s for s in self.samples if s.denoised and s.index not in self.developed)
