"""Our problems, as OpenAI's clients expect them."""

from collections.abc import Iterator
from contextlib import contextmanager

from darkroom.api.errors import CANCELLED, ProblemError, invalid
from darkroom.responses import FieldError, Job, JobStatus, Problem

# What our fields are called there.
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
GONE = Problem(
    type="urn:darkroom:problem:not-found",
    title="Not found",
    status=404,
    detail="the picture was deleted while you waited for it",
)


def failure(job: Job) -> Problem | None:
    """Why a job that is waited for no longer has no pictures; None if it has some."""
    if job.status is JobStatus.SUCCEEDED:
        return None if job.images else GONE
    if job.status is JobStatus.CANCELLED:
        return CANCELLED
    return job.error or STOPPING


@contextmanager
def in_their_words() -> Iterator[None]:
    """Have fields be called what they are called there, and what is not valid be a 400.

    The SDK raises `BadRequestError` of a 400, which is what programs written for it catch.
    """
    try:
        yield
    except ProblemError as error:
        problem = error.problem
        if problem.status != 422:
            raise
        named = [
            FieldError(pointer=NAMES.get(wrong.pointer, wrong.pointer), detail=wrong.detail)
            for wrong in problem.errors
        ]
        raise invalid(dict.fromkeys(named), 400) from None
