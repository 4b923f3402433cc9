"""What a model family does for the engine, and what it calls a sample."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from darkroom.engine.base import EngineJob
from darkroom.engine.explain.recorder import Recorder
from darkroom.engine.memory import Offload


class Sample(Protocol):
    """One image being made."""

    index: int  # among the images of its job
    seed: int
    area: int  # pixels that the denoiser sees: of the image, and of pictures beside it
    skipped: int  # calls of its key without it since its last step
    recorder: Recorder | None  # of what explains it; None if that was not asked for

    @property
    def step(self) -> int:
        """Denoising steps that are done."""

    @property
    def steps(self) -> int:
        """Denoising steps in all."""

    @property
    def denoised(self) -> bool:
        """Whether it waits for the VAE's decoder, or is a picture already."""

    @property
    def row_count(self) -> int:
        """Rows of its next call of the denoiser: two with guidance in one call."""

    @property
    def form(self) -> Hashable:
        """Samples of one model with equal forms may share a call."""


@dataclass(frozen=True)
class WarmedUp:
    """A family whose networks ran once.

    Attributes:
        call: a call of the denoiser with so many rows.
        area: pixels of each.
    """

    call: Callable[[int], object]
    area: int


class Family(Protocol):
    """A loaded model: how its samples are prepared, stepped, shown and decoded."""

    def warm_up(self, job: EngineJob) -> WarmedUp | None:
        """Run all networks once for a job. None for a family that shares no calls."""

    def notes(self, job: EngineJob) -> list[str]:
        """Sentences on what of a request has no effect, or another one than asked for."""

    def admits(self, job: EngineJob) -> bool:
        """Whether a job's LoRAs fit in memory beside those of the jobs that are prepared."""

    def prepare(self, jobs: Sequence[EngineJob]) -> dict[str, list[Any]]:
        """By job id one sample per image, ready for the first call of the denoiser.

        The jobs have the same LoRAs.

        Raises:
            AdapterError: their LoRAs cannot be used.
            ValueError: a job's request does not fit this model.
            NotFiniteError: the text encoder or the VAE gave NaN or infinity.
            torch.OutOfMemoryError: the sources do not fit in the VAE together.
            Exception: another failure. With several jobs any of them may be the cause; preparing
                each by itself tells which.
        """

    def step(self, samples: Sequence[Any], max_rows: int) -> list[tuple[Any, Exception]]:
        """One call of the denoiser for samples of equal form, in parts of at most so many rows.

        Returns the samples that failed on their own, with the error; the others have advanced.
        Raises what the call raised; then no sample has advanced.
        """

    def preview(self, sample: Any) -> bytes | None:
        """A small WebP of the image as the last step predicts it; None if there is none."""

    def decode(self, samples: Sequence[Any]) -> Sequence[Image.Image | Exception]:
        """The finished images, RGB, of denoised samples of equal form.

        In place of one whose sample failed on its own stands the error.

        Raises:
            NotFiniteError: the denoiser, or the VAE in float32 too, gave NaN or infinity.
            torch.OutOfMemoryError: they do not fit in the VAE together.
        """

    def close(self, sample: Any) -> None:
        """Free what a sample holds. It is not used any more."""

    def tile(self, side: int) -> None:
        """Send pictures through the VAE in tiles of so many pixels, where they are larger."""

    def offload(self, how: Offload) -> None:
        """Keep these weights in the CPU's memory while another part works."""
