"""The state of a job between `submit` and its last event."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from darkroom.engine.base import EngineJob
from darkroom.engine.families.base import Sample
from darkroom.requests import Lora, Txt2Img


@dataclass(frozen=True)
class Key:
    """Samples with equal keys may share a call of the denoiser."""

    model: str
    form: Hashable = None  # of the call's arguments; of a job that is not prepared, its LoRAs
    exclusive: str | None = None  # id of a job that shares no call with other jobs


@dataclass(frozen=True)
class LastPreview:
    """When an image's last preview was made, and after how many of its steps."""

    at: float  # seconds on the engine's clock
    step: int


@dataclass(eq=False)
class ActiveJob:
    """A job in flight; it has samples, one per image, once it is prepared."""

    job: EngineJob
    samples: Sequence[Sample] = ()
    decoded: set[int] = field(default_factory=set)  # indices sent as `ImageReady`
    isolated: bool = False  # a call that it was in failed, so it shares none any more
    previews: dict[int, LastPreview] = field(default_factory=dict)  # by the image's index
    images: int = 0  # of the job; known once it is prepared
    restarts: int = 0  # its own step ran out of memory
    furthest: int = 0  # steps done, at most, before a restart
    prepare_s: float = 0.0  # its share of the time that preparing took

    def begin(self, samples: Sequence[Sample]) -> None:
        """Take the prepared samples, but for images that are done already."""
        self.images = len(samples)
        self.samples = [sample for sample in samples if sample.index not in self.decoded]

    def restart(self) -> None:
        """Begin again with what is not done yet."""
        self.restarts += 1
        self.samples = ()

    @property
    def prepared(self) -> bool:
        return bool(self.samples)

    @property
    def model(self) -> str:
        return self.job.request.model

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what goes through the VAE or the upscaler."""
        request = self.job.request
        if isinstance(request, Txt2Img):
            return request.width, request.height
        return (0, 0) if self.job.image is None else self.job.image.size

    @property
    def loras(self) -> tuple[Lora, ...]:
        request = self.job.request
        return request.loras if isinstance(request, Txt2Img) else ()

    @property
    def exact(self) -> bool:
        return isinstance(self.job.request, Txt2Img) and self.job.request.exact

    @property
    def key(self) -> Key:
        """Jobs with equal keys may be prepared together."""
        return Key(self.model, self.loras, self._exclusive)

    def key_of(self, sample: Sample) -> Key:
        """Samples with equal keys may share a call."""
        return Key(self.model, sample.form, self._exclusive)

    @property
    def _exclusive(self) -> str | None:
        return self.job.id if self.exact or self.isolated else None

    @property
    def steps(self) -> int:
        return sum(sample.steps for sample in self.samples)

    @property
    def step(self) -> int:
        return sum(sample.step for sample in self.samples)

    def undenoised(self) -> list[Any]:
        return [sample for sample in self.samples if not sample.denoised]

    def undecoded(self) -> Iterator[Any]:
        """Samples that are denoised and not yet decoded."""
        return (s for s in self.samples if s.denoised and s.index not in self.decoded)
