"""POST /txt2img, /img2img, /inpaint, /upscale: submit a job, and wait for it as asked."""

from flask import Blueprint, Response, g, request
from pydantic import BaseModel, ConfigDict, Field

from darkroom.api import submit
from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import CANCELLED, ProblemError, respond
from darkroom.api.http import preferred_wait_s, read_query, send_model, wants_image
from darkroom.api.openapi import form_model, route
from darkroom.api.operations import IDEMPOTENCY_KEY, IMAGES, PREFER, PRIORITY
from darkroom.api.prepare import FILE_FIELDS, fingerprint
from darkroom.api.routes.images import send_picture
from darkroom.asgi.wait import until_ended
from darkroom.requests import REQUESTS, Task
from darkroom.responses import Job, JobStatus, Problem

blueprint = Blueprint("generate", __name__)

MAX_KEY_CHARS = 255

GENERATED: dict[int, type[BaseModel] | None] = {
    200: Job,
    202: Job,
    **dict.fromkeys((400, 409, 413, 415, 422, 507), Problem),
}


class GenerateQuery(BaseModel):
    """What to do when the caller disconnects."""

    model_config = ConfigDict(extra="forbid")

    cancel_on_disconnect: bool = Field(False, description="Cancel the job.")


def _route(task: Task, summary: str) -> None:
    def handler() -> Response:
        return generate(task)

    handler.__name__ = task.value
    handler.__doc__ = (
        f"{summary}\n\nAnswers the job when it is done, or its first image's bytes to "
        "`Accept: image/*`. `Prefer: respond-async` answers 202 at once, `Prefer: wait=N` after N "
        "seconds at most. `Idempotency-Key` makes a repeat return the first one's job. "
        "`Priority: u=0` puts it before your others, `u=7` behind them (RFC 9218)."
    )
    route(
        blueprint,
        "POST",
        f"/{task.value}",
        json=REQUESTS[task],
        form=form_model(task),
        query=GenerateQuery,
        answers=GENERATED,
        sends={200: IMAGES},
        takes=(PREFER, IDEMPOTENCY_KEY, PRIORITY),
        tag="generate",
    )(handler)


_route(Task.TXT2IMG, "Generate images from a prompt.")
_route(Task.IMG2IMG, "Generate images from an image and a prompt.")
_route(Task.INPAINT, "Repaint the white part of a mask in an image.")
_route(Task.UPSCALE, "Enlarge an image with an upscaling network.")


def generate(task: Task) -> Response:
    """Submit the current request as a job, and answer as its headers ask."""
    here = context()
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= MAX_KEY_CHARS:
        raise ProblemError(
            400,
            "idempotency",
            "Unusable Idempotency-Key",
            f"it has 1 to {MAX_KEY_CHARS} characters",
        )
    cancels = read_query(GenerateQuery).cancel_on_disconnect
    submit.check_room(key)
    body = here.bodies.read(FILE_FIELDS)
    asked = body.validate(REQUESTS[task])
    prepared = submit.prepare(asked, body.files, fingerprint(asked, body.files))
    job = submit.accept(prepared, key, body.digest(task) if key else None)
    wait_s = preferred_wait_s()
    if wait_s == 0:
        return _accepted(job)
    return until_ended(
        job.id,
        wait_s,
        has_ended=lambda: here.store.has_ended(job.id),
        answer=lambda: _answer(job.id),
        abandon=lambda: _abandon(job.id, cancels),
    )


def _answer(job_id: str) -> Response:
    """The answer to a job in its current state."""
    job = submit.job(job_id)
    return _result(job) if job.status.terminal else _accepted(job)


def _abandon(job_id: str, cancels: bool) -> None:
    """Handle a disconnected caller: cancel the job if they asked for that."""
    if cancels:
        context().store.cancel(job_id, access.caller().sees)
        context().ring_worker()


def _accepted(job: Job) -> Response:
    headers = {"Location": job.url}
    if request.headers.get("Prefer"):
        headers["Preference-Applied"] = request.headers["Prefer"]
    return send_model(job, 202, headers)


def _result(job: Job) -> Response:
    headers = {"Location": job.url}
    if job.status is JobStatus.CANCELLED:
        return respond(CANCELLED.model_copy(update={"request_id": g.request_id}), headers)
    if job.error is not None:
        return respond(job.error.model_copy(update={"request_id": g.request_id}), headers)
    if wants_image() and job.images:
        return send_picture(job.images[0].id, headers)
    return send_model(job, 200, headers)
