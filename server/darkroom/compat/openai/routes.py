"""POST /v1/images/generations, /edits and /variations; GET /v1/models."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from flask import Blueprint, Response, jsonify, request

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError, invalid_field, respond
from darkroom.api.routes import submit
from darkroom.api.routes.images import read_file, signed_address
from darkroom.api.routes.models import openai_model, openai_models
from darkroom.asgi.wait import EventStream, suspend
from darkroom.catalog.models import UnknownModelError
from darkroom.compat.openai import answers
from darkroom.compat.openai.answers import Kind, OpenAIEncoder
from darkroom.compat.openai.translate import Translated, apply_tags, translate
from darkroom.requests import MAX_SEED, Task
from darkroom.responses import Job

blueprint = Blueprint("openai", __name__, url_prefix="/v1")

# The SDK repeats a request after 409 and 5xx unless told otherwise (openai/_base_client.py,
# `_should_retry`), but a failed job would fail again, and a cancelled one was not wanted.
NO_RETRY = {"X-Should-Retry": "false"}


@blueprint.post("/images/generations")
def generations() -> Response:
    """Generate pictures from a prompt."""
    return _generate(Task.TXT2IMG, "image_generation")


@blueprint.post("/images/edits")
def edits() -> Response:
    """Repaint what a mask leaves transparent, or all of a picture if there is no mask.

    Models that edit as the prompt says do that without a mask, with as many pictures as they take.
    """
    return _generate(Task.IMG2IMG, "image_edit")


@blueprint.post("/images/variations")
def variations() -> Response:
    """Generate pictures from another one, without a prompt."""
    return _generate(Task.IMG2IMG, "image_edit", prompt="")


WITHOUT_VERSION = ("/images/generations", "/images/edits", "/images/variations")
without_version = Blueprint("openai_without_version", __name__)


@without_version.post(WITHOUT_VERSION[0])
@without_version.post(WITHOUT_VERSION[1])
@without_version.post(WITHOUT_VERSION[2])
def say_where() -> Response:
    """What clients ask for whose base URL lacks /v1."""
    base = f"{request.host_url}v1"
    detail = f"the OpenAI API is under /v1: set the client's base URL to {base}"
    raise ProblemError(404, "base-url", "Not this address", detail)


@answers.translated_errors()
def _generate(task: Task, kind: Kind, **defaults: Any) -> Response:
    """Put the current request in the queue, and answer when it is done, or with its events.

    The SDK repeats a request that was not answered in time; a repeat shares the first one's jobs.
    A client that has left for good cannot fetch its pictures, so its jobs need their caller.

    Args:
        task: the route's task.
        kind: first part of the names of a stream's events.
        defaults: fields used if they were not sent.
    """
    here = context()
    sent = here.bodies.read(("image", "mask"), ("image",), tolerant=True)
    given = {name: value for name, value in sent.fields.items() if value is not None}
    digest = replace(sent, fields=given).digest(request.path)
    asked = translate(task, replace(sent, fields={**defaults, **given}), here.catalog, here.sources)
    asked = apply_tags(asked, here.catalog, here.adapters)
    if asked.options.stream and asked.more:
        detail = f"is at most {asked.request.num_images} in a stream"
        raise invalid_field("n", detail)
    submit.check_room()
    prepared = submit.prepare(asked.request, asked.files, digest)
    wanted_s = here.settings.web.abandoned_s or None
    with submit.all_or_none(wanted_s=wanted_s) as accept:
        jobs = [accept(prepared)]
        if asked.more:  # than one job makes: a second one, whose seeds follow
            count = asked.request.num_images
            seed = (jobs[0].request["seed"] + count) % (MAX_SEED + 1)
            rest = asked.request.model_copy(update={"num_images": asked.more, "seed": seed})
            jobs.append(accept(submit.prepare(rest, asked.files, f"{digest}+{seed}")))
    if asked.options.stream:
        return _stream(jobs[0], asked, kind)
    job_ids = [job.id for job in jobs]
    return submit.when_ended(job_ids, lambda ended: _pictures(ended, asked), _refusal)


def _stream(accepted: Job, asked: Translated, kind: Kind) -> Response:
    """Answer with the job's events."""
    here, who, job_id = context(), access.caller(), accepted.id
    allowed = partial(access.is_let_in, who.token_id, here.tokens)
    job = partial(here.store.job, job_id, who.sees)
    wanted, ignored = asked.options.partial_images, asked.ignored.names
    encoder = OpenAIEncoder(kind, wanted, accepted.url, ignored, job, here.files)
    return suspend(
        EventStream(job_id, 0, who.sees, allowed, encoder),
        content_type="text/event-stream",
        headers={
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            "Location": accepted.url,
            **asked.ignored.headers,
        },
    )


def _refusal(job: Job) -> Response | None:
    """The error of a job without pictures; None if it has some."""
    problem = answers.failure(job)
    if problem is None:
        return None
    if not job.status.terminal:
        return submit.stopping(job, problem)
    return respond(problem, NO_RETRY)


def _pictures(jobs: Sequence[Job], asked: Translated) -> Response:
    """Answer with the pictures of all jobs, in base64 or as addresses."""
    data: list[dict[str, Any]] = []
    for image in (image for job in jobs for image in job.images):
        if asked.options.wants_addresses:
            content = {"url": signed_address(image.id)}
        else:
            content = {"b64_json": base64.b64encode(read_file(image.id)).decode()}
        data.append({**content, "seed": image.seed})
    about = {**answers.job_fields(jobs[0]), "ignored": asked.ignored.names}
    return asked.ignored.sent_with(
        jsonify(created=answers.created(jobs[0]), data=data, **about, usage=answers.USAGE)
    )


@blueprint.get("/models")
def list_models() -> dict[str, Any]:
    """All models."""
    return {
        "object": "list",
        "data": [model.model_dump() for model in openai_models(context().catalog.entries())],
    }


@blueprint.get("/models/<path:name>")
def show_model(name: str) -> dict[str, Any]:
    """One model."""
    try:
        return openai_model(context().catalog.find(name)).model_dump()
    except UnknownModelError as error:
        raise ProblemError(404, "model", "No such model", str(error)) from None
