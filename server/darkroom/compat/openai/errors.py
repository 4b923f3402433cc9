"""Errors of OpenAI's API: their shape, fields by OpenAI's names, and why a job has no pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from darkroom.api.errors import CANCELLED, ProblemError, invalid
from darkroom.responses import FieldError, Job, JobStatus, Problem

# OpenAI's names of our fields.
NAMES = {
    "#/num_images": "#/n",
    "#/width": "#/size",
    "#/height": "#/size",
    "#/mask_image": "#/mask",
}

# OpenAI's codes of our problems.
CODES = {
    "token": "invalid_api_key",
    "model": "model_not_found",
    "validation": "invalid_value",
    "queue-full": "rate_limit_exceeded",
    "too-many-requests": "rate_limit_exceeded",
    "too-many-failures": "rate_limit_exceeded",
}
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

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


def as_error(problem: Problem) -> dict[str, Any]:
    """A problem as OpenAI's API answers it (API reference, "Error codes")."""
    param = problem.errors[0].pointer.removeprefix("#").removeprefix("/") if problem.errors else ""
    _, ours, kind = problem.type.partition("urn:darkroom:problem:")
    error = {
        "message": problem.detail or problem.title,
        "type": "server_error"
        if problem.status >= 500
        else TYPES.get(problem.status, "invalid_request_error"),
        "param": param or None,
        "code": CODES.get(kind, kind.replace("-", "_")) if ours else None,
    }
    return {"error": error}


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
