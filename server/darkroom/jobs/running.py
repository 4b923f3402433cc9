"""A job in a worker's hands, and what is measured of it."""

import io
from dataclasses import dataclass
from hashlib import sha256

from PIL import Image

from darkroom import pictures
from darkroom.engine.base import EngineJob
from darkroom.jobs import metadata
from darkroom.jobs.eta import Speed
from darkroom.jobs.files import Files
from darkroom.jobs.records import Claim


@dataclass
class Running:
    """A claimed job.

    Attributes:
        claim: on it.
        step: denoising steps done, over all its images.
        steps: in all.
        started_at: when the first step began, monotonic seconds.
        step_seconds: spent in steps.
        other_seconds: spent in everything else.
        source_sha256: of the source picture's file.
        mask_sha256: of the mask's.
    """

    claim: Claim
    step: int = 0
    steps: int = 0
    started_at: float = 0.0
    step_seconds: float = 0.0
    other_seconds: float = 0.0
    source_sha256: str | None = None
    mask_sha256: str | None = None

    def load(self, files: Files) -> EngineJob:
        """Read its pictures.

        Raises:
            OSError: one is gone, or is no picture any more.
        """
        request = self.claim.request
        image = mask = None
        if request.image is not None:
            data = files.read(request.image.removeprefix("image:"))
            self.source_sha256 = sha256(data).hexdigest()
            image = pictures.opaque(Image.open(io.BytesIO(data)))
        if request.mask_image is not None:
            data = files.read(request.mask_image.removeprefix("image:"))
            self.mask_sha256 = sha256(data).hexdigest()
            mask = pictures.as_mask(Image.open(io.BytesIO(data)))
        return EngineJob(self.claim.job_id, request, image, mask)

    def text_chunks(self, index: int) -> dict[str, str]:
        """What image `index` says about its making."""
        return metadata.text_chunks(self.claim.request, index, self.source_sha256, self.mask_sha256)

    def eta_seconds(self, now: float) -> float:
        """To the end of its steps, at the pace so far; other jobs in flight are in that pace."""
        return round((now - self.started_at) / self.step * (self.steps - self.step), 2)

    def speed(self) -> Speed | None:
        """What was measured, for the estimates of jobs to come; None if it did no step."""
        if not self.step:
            return None
        images = self.claim.request.num_images
        return Speed(self.step_seconds / self.step, self.other_seconds / images)
