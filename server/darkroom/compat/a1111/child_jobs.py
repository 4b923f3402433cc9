"""Jobs of one request: more pictures than one job makes, a second pass, tiles, or enlarging."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from flask import Response

from darkroom.api import submit
from darkroom.api.context import Context
from darkroom.api.parse import validate
from darkroom.api.prepare import FILE_FIELDS
from darkroom.compat.a1111 import answers
from darkroom.requests import (
    MAX_IMAGES_PER_JOB,
    MAX_SEED,
    REQUESTS,
    OutputFormat,
    Task,
)
from darkroom.responses import Job, UpscalerInfo

Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class ChildJob:
    """A job to put in the queue.

    Attributes:
        task: the job's task.
        values: fields of our own request, without a seed.
        files: uploaded pictures by our field's name.
        first: index of its first picture among the request's, which decides its seed.
        source: jobs of the same number use the same pictures, which are stored once.
    """

    task: Task
    values: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    first: int = 0
    source: int = 0


def split(count: int) -> list[tuple[int, int]]:
    """Divide a number of pictures among jobs: index of the first one, and how many, of each job."""
    starts = range(0, count, MAX_IMAGES_PER_JOB)
    return [(start, min(MAX_IMAGES_PER_JOB, count - start)) for start in starts]


def place(
    child_jobs: Sequence[ChildJob], seed: int | None, digest: str, stage: str
) -> tuple[str, ...]:
    """Put all jobs of a request in the queue, or none if one is refused; their ids.

    Args:
        child_jobs: in order.
        seed: of the request's first picture; None is a random one.
        digest: of the request. Sent again while a job is unfinished, it finds that job.
        stage: distinguishes several calls for one request.

    Raises:
        ProblemError: of the first job that is refused.
    """
    placed: list[str] = []
    stored: dict[int, dict[str, str]] = {}
    with submit.all_or_none() as accept:
        for index, child in enumerate(child_jobs):
            values = {**child.values, **stored.get(child.source, {})}
            files = {} if child.source in stored else child.files
            if seed is not None:
                values["seed"] = (seed + child.first) % (MAX_SEED + 1)
            fields = {**values, **dict.fromkeys(files, "file part")}
            asked = validate(REQUESTS[child.task], fields)
            fingerprint = sha256(f"{digest} {(stage, index)}".encode()).hexdigest()
            job_id = accept(submit.prepare(asked, files, fingerprint))
            placed.append(job_id)
            if len(child_jobs) > 1:
                made = submit.job(job_id).request
                stored[child.source] = {name: made[name] for name in FILE_FIELDS if name in made}
                if seed is None and "seed" in made:
                    seed = (made["seed"] - child.first) % (MAX_SEED + 1)
    return tuple(placed)


@dataclass(frozen=True)
class Original:
    """A picture to enlarge.

    Attributes:
        data: the picture's file.
        size: its size.
        wanted: the size to reach; a network gets as close as its own scale allows.
        reference: `image:<id>` if the picture is stored.
    """

    data: bytes
    size: Size
    wanted: Size
    reference: str | None = None

    def job(self, network: UpscalerInfo, index: int) -> ChildJob:
        """The job that enlarges it."""
        scale = max(want / have for want, have in zip(self.wanted, self.size, strict=True))
        values = {
            "upscaler": network.name,
            "scale": min(float(network.scale), max(1.0, scale)),
            "output_format": OutputFormat.PNG,
        }
        files = {"image": self.data}
        if self.reference is not None:
            values, files = {**values, "image": self.reference}, {}
        return ChildJob(Task.UPSCALE, values, files, index, index)


def enlarge(
    here: Context,
    originals: Sequence[Original],
    network: UpscalerInfo | None,
    digest: str,
    then: Callable[[Sequence[Job], Sequence[bytes | None]], Response],
) -> Response:
    """Answer the current request once a network has enlarged all pictures, a job each.

    Args:
        here: the application's context.
        originals: the pictures; all jobs are put in the queue at once.
        network: the network; with None there are no jobs, and the pictures stay as they are.
        digest: of the request.
        then: answers, or waits for more. Takes the jobs and their files, PNGs not yet of the
            wanted size, None for an interrupted job. Not called if a job failed.

    Raises:
        ProblemError: 422 or 429.
    """
    if network is None:
        return then((), [original.data for original in originals])
    child_jobs = [original.job(network, index) for index, original in enumerate(originals)]

    def ended(jobs: Sequence[Job]) -> Response:
        failed = answers.failure(jobs)
        if failed is not None:
            return failed
        files = [answers.read_image(here, job.images[0]) if job.images else None for job in jobs]
        return then(jobs, files)

    return submit.when_ended(place(child_jobs, None, digest, "larger"), ended)
