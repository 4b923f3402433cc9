"""The interface between the queue and whatever makes pictures. Imports no torch."""

from dataclasses import dataclass
from typing import Protocol

from PIL.Image import Image

from darkroom.requests import ResolvedRequest


@dataclass(frozen=True)
class EngineJob:
    """Work for an engine.

    Attributes:
        id: echoed in every event.
        request: what to make.
        image: RGB source picture of img2img and inpaint.
        mask: L, the size of `image`; white is repainted.
        client: whose it is; the engine's time is dealt out evenly between clients.
    """

    id: str
    request: ResolvedRequest
    image: Image | None = None
    mask: Image | None = None
    client: str = ""


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
    """What the first image of the job seems to become: a small WebP."""

    job_id: str
    webp: bytes


@dataclass(frozen=True)
class JobWarning:
    """Something that the one who asked should know, though their job goes on.

    Attributes:
        note: what is done differently from what was asked, and why: "memory was short: images
            were developed one at a time". One sentence; said again it changes nothing.
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


@dataclass(frozen=True)
class Finished:
    """All images of the job have been handed over."""

    job_id: str


@dataclass(frozen=True)
class Failed:
    """The job cannot be done; the engine goes on with the others.

    Attributes:
        kind: `out-of-memory`; `model`, which cannot be loaded; `request`, whose parameters do not
            go together for this model or scheduler, so that it fails however often it is tried;
            or `engine`, for everything else.
        detail: for the person who asked.
    """

    job_id: str
    kind: str
    detail: str


EngineEvent = Started | Stepped | Previewed | JobWarning | ImageReady | Finished | Failed


class Meter(Protocol):
    """Told what an engine's calls took, by the clock. On a GPU that is until they are launched."""

    def denoised(self, rows: int, seconds: float) -> None:
        """One step of `rows` rows; where memory is short they went through the UNet in parts."""

    def decoded(self, pictures: int, seconds: float) -> None:
        """One call of the VAE."""


class NoMeter:
    """For engines that nobody measures."""

    def denoised(self, rows: int, seconds: float) -> None: ...

    def decoded(self, pictures: int, seconds: float) -> None: ...


class Engine(Protocol):
    """Makes pictures, a step at a time. Used from one thread.

    A job is in flight from `submit` until `Finished` or `Failed` was yielded for it, or until
    `cancel`. Events of one job come in the order Started, then Stepped and Previewed, then
    ImageReady once an image, then Finished. JobWarning may come between Started and the end.
    One tick may bring events of several jobs: those that shared its work.
    """

    def warm_up(self) -> None:
        """Load what the first job will need, so that it does not wait for it.

        Raises:
            OSError: the default model cannot be read.
        """

    def submit(self, job: EngineJob) -> None:
        """Take a job on. Does no work yet; what goes wrong with it comes as `Broken`."""

    def cancel(self, job_id: str) -> None:
        """Drop a job; no event of it will follow. Unknown ids are ignored."""

    def in_flight(self) -> int:
        """How many jobs are being worked on."""

    def tick(self) -> list[EngineEvent]:
        """Do one unit of work, about one denoising step, and say what came of it."""
