"""POST /v1/images/generations, /edits and /variations."""

import dataclasses
from functools import partial

from flask import Blueprint, Response

from darkroom.api import submit
from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import invalid
from darkroom.api.parsing import prepare
from darkroom.asgi.wait import EventStream, suspend
from darkroom.compat.openai import fields
from darkroom.compat.openai.answers import when_done
from darkroom.compat.openai.event_encoder import Kind, Partials
from darkroom.compat.openai.problems import in_their_words
from darkroom.compat.openai.translation import Asked, rest_of, translate
from darkroom.requests import Task
from darkroom.responses import FieldError

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
    if asked.options.stream and asked.more:
        detail = f"is at most {asked.request.num_images} in a stream"
        raise invalid([FieldError(pointer="#/n", detail=detail)])
    submit.check_room()
    taken = prepare.resolve(asked.task, asked.request, asked.files, asked.fingerprint)
    with submit.all_or_none() as accept:
        job_ids = [accept(taken)]
        if asked.more:
            rest = prepare.resolve(
                asked.task,
                rest_of(asked, submit.job(job_ids[0]).request["seed"]),
                asked.files,
                f"{asked.fingerprint}+{asked.request.num_images}",
            )
            job_ids.append(accept(rest))
    if asked.options.stream:
        return _stream(job_ids[0], asked, kind)
    return when_done(job_ids, asked)


def _stream(job_id: str, asked: Asked, kind: Kind) -> Response:
    here, sees = context(), access.caller().sees
    job = partial(here.store.job, job_id, sees)
    partials = Partials(kind, asked.options.partial_images, job, here.files)
    return suspend(
        EventStream(job_id, 0, sees, access.may_stay(), partials),
        content_type="text/event-stream",
        headers={
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            **asked.ignored.headers,
        },
    )
