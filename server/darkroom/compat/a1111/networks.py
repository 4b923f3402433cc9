"""Pictures made larger by a network: a job of the queue each, before whatever comes next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flask import Response

from darkroom.api import submit
from darkroom.compat.a1111 import answers, child_jobs
from darkroom.compat.a1111.bodies import Body
from darkroom.compat.a1111.child_jobs import ChildJob
from darkroom.requests import OutputFormat, Task
from darkroom.responses import Job, UpscalerInfo

STAGE = "larger"

Size = tuple[int, int]


@dataclass(frozen=True)
class Small:
    """A picture that is to be larger.

    Attributes:
        picture: a PNG, or `image:<id>` of a stored one.
        size: that it has, width and height in pixels.
        wanted: that it is to have; a network makes at most as much of it as it was trained to.
    """

    picture: bytes | str
    size: Size
    wanted: Size


def enlarge(
    pictures: Sequence[Small],
    network: UpscalerInfo,
    body: Body,
    then: Callable[[Sequence[Job], Sequence[bytes | None]], Response],
) -> Response:
    """Answer the current request when all are larger, or with the problem of the first that failed.

    Args:
        pictures: in child; all are put in the queue at once.
        network: that makes them larger.
        body: of the request.
        then: is given the jobs and their files, PNGs, not yet of the size that is wanted; None for
            one that was interrupted. It answers; that may be to wait for more.

    Raises:
        ProblemError: 422 or 429.
    """
    placed = child_jobs.place(
        [_child_job(small, network, index) for index, small in enumerate(pictures)],
        None,
        body,
        STAGE,
    )

    def ended(jobs: Sequence[Job]) -> Response:
        failed = answers.failure(jobs)
        return failed or then(jobs, [_file(job) for job in jobs])

    return submit.when_ended(placed, ended)


def _child_job(small: Small, network: UpscalerInfo, index: int) -> ChildJob:
    times = max(want / have for want, have in zip(small.wanted, small.size, strict=True))
    values = {
        "upscaler": network.name,
        "scale": min(float(network.scale), max(1.0, times)),
        "output_format": OutputFormat.PNG,
    }
    if isinstance(small.picture, str):
        return ChildJob(Task.UPSCALE, {**values, "image": small.picture}, {}, index, index)
    return ChildJob(Task.UPSCALE, values, {"image": small.picture}, index, index)


def _file(job: Job) -> bytes | None:
    return answers.file_of(job.images[0]) if job.images else None
