"""A job that a worker runs: its source, its images, and its measured speed."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from PIL import Image

from darkroom.engine.base import EngineEvent, EngineJob, ImageReady, Stepped
from darkroom.images import codec, metadata
from darkroom.queue.estimate import Kind, Speed, power_of_two
from darkroom.requests import Edit, Img2Img, Inpaint, OutputFormat, Upscale
from darkroom.responses import JobStatus, Problem
from darkroom.storage.files import Files
from darkroom.storage.records import Claim, explanation_name
from darkroom.storage.tables import ExplanationRow, ImageRow


@dataclass
class Running:
    """A claimed job.

    Attributes:
        step: denoising steps done, over all its images.
        steps: the total.
        started_at: when the first step began, monotonic seconds.
        step_seconds: its share of the engine's time spent on steps.
        other_seconds: its share of the time spent on everything else.
        images_in_flight: of all jobs, summed over its steps.
        unstored: pictures that the engine has made and that have no record yet.
        loaded: whether the engine has it.
        ending: how it ends once these are recorded, with the reason if it failed. The engine no
            longer works on it then. None while it does.
    """

    claim: Claim
    step: int = 0
    steps: int = 0
    started_at: float = 0.0
    step_seconds: float = 0.0
    other_seconds: float = 0.0
    images_in_flight: int = 0
    unstored: int = 0
    loaded: bool = False
    ending: tuple[JobStatus, Problem | None] | None = None
    source_sha256: str | None = None
    mask_sha256: str | None = None
    references_sha256: tuple[str, ...] = ()

    @property
    def ids(self) -> dict[str, str | None]:
        """The ids of the job and of its HTTP request, for the log."""
        return {"job_id": self.claim.job_id, "request_id": self.claim.request_id}

    def load(self, files: Files) -> EngineJob:
        """Read the source image, the mask and the references.

        Raises:
            FilesUnavailableError: they cannot be read now.
            OSError: a file is missing, or is not an image.
            ValueError: an image cannot be decoded.
        """
        request = self.claim.request
        image = mask = None
        self.references_sha256 = ()
        if isinstance(request, Img2Img | Inpaint | Upscale):
            data = files.read(request.image.removeprefix("image:"))
            self.source_sha256 = sha256(data).hexdigest()
            image = codec.opaque(Image.open(io.BytesIO(data)))
        if isinstance(request, Inpaint):
            data = files.read(request.mask_image.removeprefix("image:"))
            self.mask_sha256 = sha256(data).hexdigest()
            mask = codec.as_mask(Image.open(io.BytesIO(data)))
        references = []
        if isinstance(request, Edit):
            for reference in request.references:
                data = files.read(reference.removeprefix("image:"))
                self.references_sha256 += (sha256(data).hexdigest(),)
                references.append(codec.as_reference(Image.open(io.BytesIO(data))))
        client = self.claim.client
        return EngineJob(self.claim.job_id, request, image, mask, client, tuple(references))

    def store(
        self, event: ImageReady, write: Callable[[str, bytes], None], png_level: int
    ) -> tuple[ImageRow, ExplanationRow | None]:
        """Write an image's file, with its metadata, and how it was made, if that is known.

        Returns their records. Called in any thread.

        Args:
            write: stores bytes under a name; what it raises is raised.
        """
        request = self.claim.request
        chunks = metadata.text_chunks(
            request, event.index, self.source_sha256, self.mask_sha256, self.references_sha256
        )
        data = codec.encode(event.picture, request.output_format, chunks, png_level)
        image_id = f"{event.job_id}-{event.index}"
        write(image_id, data)
        image = ImageRow(
            id=image_id,
            job_id=event.job_id,
            index=event.index,
            seed=event.seed,
            width=event.picture.width,
            height=event.picture.height,
            content_type=OutputFormat(request.output_format).content_type,
            bytes=len(data),
            sha256=sha256(data).hexdigest(),
        )
        if event.explanation is None:
            return image, None
        name, text = explanation_name(image_id), event.explanation.model_dump_json().encode()
        write(name, text)
        return image, ExplanationRow(
            id=name,
            image_id=image_id,
            job_id=event.job_id,
            index=event.index,
            bytes=len(text),
            sha256=sha256(text).hexdigest(),
        )

    def eta_seconds(self, now: float) -> float:
        """Seconds to the end of its steps at the mean pace so far."""
        return round((now - self.started_at) / self.step * (self.steps - self.step), 2)

    def measured(self) -> tuple[Kind, Speed] | None:
        """The speed measured, for estimates; None if it did no step, or explained them."""
        if not self.step or getattr(self.claim.request, "explain", False):
            return None
        work = self.claim.workload
        in_flight = power_of_two(self.images_in_flight / self.step)
        return (
            Kind(work.model, work.pixels, in_flight),
            Speed(self.step_seconds / self.step, self.other_seconds / work.images),
        )


def share_out(
    seconds: float, events: Sequence[EngineEvent], in_flight: Mapping[str, Running]
) -> None:
    """Charge the time of a tick to the jobs that it worked on.

    A job is charged by the denoising steps made for it, each image counting; one that was prepared
    or decoded instead is charged as for one step. So the shares of all jobs add up to the time that
    passed, however many jobs share a tick.

    Args:
        events: of the tick, before they are handled: `Running.step` is still that before the tick.
        in_flight: jobs by id; events of other jobs are skipped.
    """
    made = {event.job_id: 0 for event in events if event.job_id in in_flight}
    for event in events:
        if isinstance(event, Stepped) and event.job_id in made:
            made[event.job_id] = event.step - in_flight[event.job_id].step
    whole = sum(max(1, steps) for steps in made.values())
    images = sum(running.claim.workload.images for running in in_flight.values())
    for job_id, steps in made.items():
        running = in_flight[job_id]
        if steps:
            running.step_seconds += seconds * steps / whole
            running.images_in_flight += steps * images
        else:
            running.other_seconds += seconds / whole
