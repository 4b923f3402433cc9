"""A job in a worker's hands, and what is measured of it."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from PIL import Image

from darkroom.engine.base import EngineEvent, EngineJob, Stepped
from darkroom.images import codec, metadata
from darkroom.queue.estimate import Kind, Speed, power_of_two
from darkroom.requests import Img2Img, Inpaint, Upscale
from darkroom.storage.files import Files
from darkroom.storage.records import Claim


@dataclass
class Running:
    """A claimed job.

    Attributes:
        claim: on it.
        step: denoising steps done, over all its images.
        steps: in all.
        started_at: when the first step began, monotonic seconds.
        step_seconds: its share of the engine's time that went into steps.
        other_seconds: and into everything else.
        company: images in flight, its own among them, summed over its steps.
        source_sha256: of the source picture's file.
        mask_sha256: of the mask's.
    """

    claim: Claim
    step: int = 0
    steps: int = 0
    started_at: float = 0.0
    step_seconds: float = 0.0
    other_seconds: float = 0.0
    company: int = 0
    source_sha256: str | None = None
    mask_sha256: str | None = None

    def load(self, files: Files) -> EngineJob:
        """Read its pictures.

        Raises:
            OSError: one is gone, or is no picture any more.
        """
        request = self.claim.request
        image = mask = None
        if isinstance(request, Img2Img | Inpaint | Upscale):
            data = files.read(request.image.removeprefix("image:"))
            self.source_sha256 = sha256(data).hexdigest()
            image = codec.opaque(Image.open(io.BytesIO(data)))
        if isinstance(request, Inpaint):
            data = files.read(request.mask_image.removeprefix("image:"))
            self.mask_sha256 = sha256(data).hexdigest()
            mask = codec.as_mask(Image.open(io.BytesIO(data)))
        return EngineJob(self.claim.job_id, request, image, mask, self.claim.client)

    def text_chunks(self, index: int) -> dict[str, str]:
        """What image `index` says about its making."""
        return metadata.text_chunks(self.claim.request, index, self.source_sha256, self.mask_sha256)

    def eta_seconds(self, now: float) -> float:
        """To the end of its steps, at the pace so far; other jobs in flight are in that pace."""
        return round((now - self.started_at) / self.step * (self.steps - self.step), 2)

    def measured(self) -> tuple[Kind, Speed] | None:
        """What was learned, for the estimates of jobs to come; None if it did no step."""
        if not self.step:
            return None
        work = self.claim.workload
        in_flight = power_of_two(self.company / self.step)
        return (
            Kind(work.model, work.pixels, in_flight),
            Speed(self.step_seconds / self.step, self.other_seconds / work.images),
        )


def share_out(
    seconds: float, events: Sequence[EngineEvent], in_flight: Mapping[str, Running]
) -> None:
    """Charge a tick's time to the jobs that it worked on.

    Each pays for the denoising steps that it made, one of eight images eight times what one of a
    single image pays; a job that made none, because it was prepared or decoded, as if for one. So
    the shares add up to the clock, however many jobs an engine serves in one tick.

    Args:
        seconds: that the tick took.
        events: of the tick, not yet passed on: `Running.step` is as it was before.
        in_flight: jobs by id; one that is not among them pays nothing.
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
            running.company += steps * images
        else:
            running.other_seconds += seconds / whole
