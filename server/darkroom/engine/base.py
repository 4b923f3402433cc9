"""The interface between the queue and the engine: jobs in, events out. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from PIL.Image import Image

from darkroom.catalog.model_entry import NumberBytes
from darkroom.requests import ResolvedRequest, Txt2Img
from darkroom.responses import ExplainedImage


@dataclass(frozen=True)
class EngineJob:
    """A job for an engine."""

    id: str
    request: ResolvedRequest
    image: Image | None = None  # RGB source of img2img, inpaint and upscale
    mask: Image | None = None  # L, the size of `image`; white is repainted
    client: str = ""  # the engine's time is shared evenly between clients
    references: tuple[Image, ...] = ()  # RGB, of any sizes; the pictures that an edit speaks of

    @property
    def model_request(self) -> Txt2Img:
        """The request of a job for a model: any but an upscaling."""
        assert isinstance(self.request, Txt2Img)
        return self.request


@dataclass(frozen=True)
class ResidentModel:
    """A model in memory: how long it took to load, and what it takes."""

    load_seconds: float
    bytes: int


@dataclass(frozen=True)
class EngineMemory:
    """What models take of an engine's memory.

    Attributes:
        budget_bytes: what those in memory may take together.
        number_bytes: what a model that is loaded would take.
        resident: bytes of the models in memory.
    """

    budget_bytes: int
    number_bytes: NumberBytes
    resident: Mapping[str, int]


@dataclass(frozen=True)
class Started:
    job_id: str
    steps: int


@dataclass(frozen=True)
class Stepped:
    """`step` of `steps` denoising steps are done, over all images of the job."""

    job_id: str
    step: int
    steps: int


@dataclass(frozen=True)
class Previewed:
    """A preview of image `index` of the job after `step` of its `steps`: a small WebP."""

    job_id: str
    webp: bytes
    index: int = 0
    step: int = 0
    steps: int = 0


@dataclass(frozen=True)
class JobWarning:
    """One sentence on what is done differently from the request, and why; the job goes on.

    It is a `Message` where people may want it in another language. Repeating it has no effect.
    """

    job_id: str
    note: str


@dataclass(frozen=True)
class ImageReady:
    """Image `index` of the job is done."""

    job_id: str
    index: int
    seed: int
    picture: Image
    explanation: ExplainedImage | None = None  # of a request with `explain`


@dataclass(frozen=True)
class Finished:
    """All images of the job were sent as `ImageReady`."""

    job_id: str


@dataclass(frozen=True)
class Failed:
    """The job failed, for the reason in `detail`; the engine goes on with the others.

    Kinds are `out-of-memory`; `model`, it cannot be loaded; `request`, its parameters do not fit
    this model or scheduler, so that a retry fails too; and `engine`, everything else.
    """

    job_id: str
    kind: str
    detail: str


EngineEvent = Started | Stepped | Previewed | JobWarning | ImageReady | Finished | Failed


class Meter(Protocol):
    """Receives the seconds of the engine's calls; on an accelerator its own, some calls later."""

    def denoised(self, rows: int, seconds: float) -> None:
        """One step of `rows` rows; where memory is short they went through the UNet in parts."""

    def decoded(self, pictures: int, seconds: float) -> None:
        """One call of the VAE."""


class Engine(Protocol):
    """Generates images, one denoising step at a time. Used from one thread.

    A job is in flight from `submit` until its `Finished` or `Failed`, or until `cancel`. Events
    of one job come in the order Started, then Stepped and Previewed, then ImageReady once per
    image, in any order, then Finished. JobWarning may come at any time before the end, also before
    Started. One tick may return events of several jobs: those that shared its call.
    """

    def warm_up(self) -> None:
        """Load the default model, so that the first job need not wait for it.

        If it cannot be loaded, its jobs fail with the reason, and those of other models go on.

        Raises:
            torch.AcceleratorError: the GPU context is lost; only a new process can go on.
        """

    def submit(self, job: EngineJob) -> None:
        """Add a job. Does no work yet; every later failure of the job comes as `Failed`."""

    def cancel(self, job_id: str) -> None:
        """Remove a job; no event of it follows. Unknown ids are ignored."""

    def in_flight(self) -> int:
        """The number of submitted jobs that have not ended."""

    def broken(self) -> Mapping[str, str]:
        """The models that could not be loaded, with the reason, until their files change.

        Thread-safe.
        """

    def resident(self) -> Mapping[str, ResidentModel]:
        """The models in memory by name, the least recently used first."""

    def memory(self) -> EngineMemory:
        """What models take of its memory. Thread-safe."""

    def fits(self, model: str) -> bool:
        """Whether a model is in memory, or can be loaded without unloading another one."""

    def unload(self, model: str) -> bool:
        """Take a model out of memory unless a job in flight uses it; returns whether it went."""

    def tick(self) -> list[EngineEvent]:
        """Run one call of one network and return the events that it caused, none when idle.

        Raises:
            torch.AcceleratorError: the GPU context is lost; only a new process can go on.
        """
