"""POST /v1/images/generations, /edits and /variations."""

import dataclasses
from functools import partial

from flask import Blueprint, Response

from darkroom.schemas import FieldError, Task
from darkroom.web import acceptance
from darkroom.web.context import context
from darkroom.web.door import auth
from darkroom.web.errors import invalid
from darkroom.web.parsing import intake
from darkroom.web.routes.compat.openai import fields
from darkroom.web.routes.compat.openai.answers import when_done
from darkroom.web.routes.compat.openai.problems import in_their_words
from darkroom.web.routes.compat.openai.telling import Kind, Partials
from darkroom.web.routes.compat.openai.translation import Asked, rest_of, translate
from darkroom.web.waiting import EventStream, suspend

blueprint = Blueprint("openai_images", __name__, url_prefix="/v1/images")


@blueprint.post("/generations")
def generations() -> Response:
    """Develop pictures from words."""
    with in_their_words():
        return _answer(translate(Task.TXT2IMG, fields.read()), "image_generation")


@blueprint.post("/edits")
def edits() -> Response:
    """Repaint what a mask leaves transparent, or all of a picture where there is none."""
    with in_their_words():
        return _answer(translate(Task.IMG2IMG, fields.read()), "image_edit")


@blueprint.post("/variations")
def variations() -> Response:
    """Develop pictures from another one, without words."""
    with in_their_words():
        sent = fields.read()
        wordless = {"prompt": "", **sent.fields}
        return _answer(
            translate(Task.IMG2IMG, dataclasses.replace(sent, fields=wordless)), "image_edit"
        )


def _answer(asked: Asked, kind: Kind) -> Response:
    """Accept what was asked for, and answer when it is done, or as it goes on.

    A client sends again what it has no answer to, so the same words while their job goes on are
    that job.
    """
    if asked.manner.stream and asked.more:
        detail = f"is at most {asked.request.num_images} in a stream"
        raise invalid([FieldError(pointer="#/n", detail=detail)])
    acceptance.check_room()
    taken = intake.resolve(asked.task, asked.request, asked.files, asked.fingerprint)
    with acceptance.all_or_none() as accept:
        job_ids = [accept(taken)]
        if asked.more:
            rest = intake.resolve(
                asked.task,
                rest_of(asked, acceptance.job(job_ids[0]).request["seed"]),
                asked.files,
                f"{asked.fingerprint}+{asked.request.num_images}",
            )
            job_ids.append(accept(rest))
    if asked.manner.stream:
        return _stream(job_ids[0], asked, kind)
    return when_done(job_ids, asked)


def _stream(job_id: str, asked: Asked, kind: Kind) -> Response:
    here, sees = context(), auth.caller().sees
    job = partial(here.store.job, job_id, sees)
    partials = Partials(kind, asked.manner.partial_images, job, here.files)
    return suspend(
        EventStream(job_id, 0, sees, auth.may_stay(), partials),
        content_type="text/event-stream",
        headers={
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            **asked.ignored.headers,
        },
    )
