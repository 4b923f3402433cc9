"""Errors of OpenAI's API: fields by OpenAI's names, and why a job has no pictures."""

from collections.abc import Iterator
from contextlib import contextmanager

from darkroom.api.errors import CANCELLED, ProblemError, invalid
from darkroom.responses import FieldError, Job, JobStatus, Problem

# OpenAI's names of our fields.
NAMES = {
    "#/num_images": "#/n",
    "#/width": "#/size",
    "#/height": "#/size",
    "#/mask_image": "#/mask",
}

STOPPING = Problem(
    type="urn:darkroom:problem:stopping",
    title="The server is stopping",
    status=503,
    detail="the server is stopping; your picture will be made when it is back",
)
DELETED = Problem(
    type="urn:darkroom:problem:not-found",
    title="Not found",
    status=404,
    detail="the picture was deleted while you waited for it",
)


def failure(job: Job) -> Problem | None:
    """Why a job has no pictures to answer with; None if it has some."""
    if job.status is JobStatus.SUCCEEDED:
        return None if job.images else DELETED
    if job.status is JobStatus.CANCELLED:
        return CANCELLED
    return job.error or STOPPING


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise errors of wrong fields under OpenAI's names, and with status 400 instead of 422.

    The SDK raises `BadRequestError` for 400, which is what its users catch.
    """
    try:
        yield
    except ProblemError as error:
        problem = error.problem
        if problem.status != 422:
            raise
        renamed = [
            FieldError(pointer=NAMES.get(wrong.pointer, wrong.pointer), detail=wrong.detail)
            for wrong in problem.errors
        ]
        raise invalid(dict.fromkeys(renamed), 400) from None
