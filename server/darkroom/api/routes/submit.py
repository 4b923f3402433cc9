"""The routes of the tasks, POST /txt2img and so on; and submitting and awaiting jobs."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any

from flask import Blueprint, Response, g, request
from pydantic import BaseModel, Field, create_model

from darkroom.api import http
from darkroom.api.auth import access
from darkroom.api.callers import HOLD
from darkroom.api.context import context
from darkroom.api.errors import CANCELLED, STOPPED_S, STOPPING, ProblemError, not_found, respond
from darkroom.api.openapi import Operation, header, route
from darkroom.api.prepare import FILE_FIELDS, LISTS, PreparedRequest, fingerprint
from darkroom.api.routes.images import send_picture
from darkroom.asgi.wait import until_ended
from darkroom.images.decoder import Decoded
from darkroom.queue.transitions import IdempotencyConflictError, QueueFullError, SourceGoneError
from darkroom.requests import (
    MAX_REFERENCES,
    REQUESTS,
    AnyRequest,
    ImageSource,
    Schema,
    Task,
)
from darkroom.responses import SOURCE_GONE, Job, JobStatus, Problem
from darkroom.storage.records import NewJob

blueprint = Blueprint("generate", __name__)

MAX_KEY_CHARS = 255

PREFER = header(
    "Prefer",
    "`respond-async` answers 202 at once, `wait=N` after N seconds at most (RFC 7240).",
    examples=["respond-async", "wait=10"],
)
IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    "A repeat with the same key returns the job of the first request.",
    minLength=1,
    maxLength=MAX_KEY_CHARS,
)
PRIORITY = header(
    "Priority",
    "Urgency among your own jobs, `u=0` first, `u=7` last (RFC 9218).",
    examples=["u=1"],
)


class GenerateQuery(Schema):
    """What to do when the caller disconnects."""

    cancel_on_disconnect: bool = Field(False, description="Cancel the job.")


def _form_model(task: Task) -> type[BaseModel]:
    """The multipart form of a task: the same fields, pictures as file parts or references."""
    cls = REQUESTS[task]
    binary = Field(json_schema_extra={"format": "binary"})
    listed = Field("[]", description="A JSON list of `{name, scale}`.")
    parts: dict[str, Any] = {
        name: (ImageSource, binary)
        for name in FILE_FIELDS
        if name in cls.model_fields and name not in LISTS
    }
    if "references" in cls.model_fields:
        several = Field(
            min_length=1,
            max_length=MAX_REFERENCES,
            description="A part for each picture, in order. If some are files and others text, "
            "number them all: `references[0]`, `references[1]` and so on.",
        )
        parts["references"] = (tuple[Annotated[ImageSource, binary], ...], several)
    if "loras" in cls.model_fields:
        parts["loras"] = (str, listed)
    return create_model(f"{cls.__name__.removesuffix('Request')}Form", __base__=cls, **parts)


def _add_route(task: Task, summary: str) -> None:
    def handler() -> Response:
        return generate(task)

    handler.__name__ = task.value
    handler.__doc__ = (
        f"{summary}\n\nAnswers the job when it is done, or its first image's bytes to "
        "`Accept: image/*`. `Prefer: respond-async` answers 202 at once, `Prefer: wait=N` after N "
        "seconds at most. `Idempotency-Key` makes a repeat return the first one's job. "
        "`Priority: u=0` puts it before your others, `u=7` behind them (RFC 9218)."
    )
    operation = Operation(
        {200: Job, 202: Job, 404: Problem, 409: Problem, 507: Problem},
        json=REQUESTS[task],
        form=_form_model(task),
        query=GenerateQuery,
        sends=http.IMAGE_TYPES,
        takes=(PREFER, IDEMPOTENCY_KEY, PRIORITY),
    )
    route(blueprint, "POST", f"/{task.value}", operation)(handler)


_add_route(Task.TXT2IMG, "Generate images from a prompt.")
_add_route(Task.IMG2IMG, "Generate images from an image and a prompt.")
_add_route(Task.INPAINT, "Repaint the white part of a mask in an image.")
_add_route(Task.EDIT, "Change images as the prompt says.")
_add_route(Task.UPSCALE, "Enlarge an image with an upscaling network.")


def generate(task: Task) -> Response:
    """Submit the current request as a job, and answer as its headers ask."""
    here = context()
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= MAX_KEY_CHARS:
        detail = f"it has 1 to {MAX_KEY_CHARS} characters"
        raise ProblemError(400, "idempotency", "Unusable Idempotency-Key", detail)
    cancels = http.read_query(GenerateQuery).cancel_on_disconnect
    check_room(key, decodes=task is not Task.TXT2IMG)
    body = here.bodies.read(FILE_FIELDS, LISTS)
    asked = body.validate(REQUESTS[task])
    prepared = prepare(asked, body.files, fingerprint(asked, body.files))
    accepted, _ = accept(prepared, key, body.digest(task) if key else None)
    wait_s = http.preferred_wait_s()
    if wait_s == 0:
        return _accepted(accepted)

    def answer() -> Response:
        found = job(accepted.id)
        if found.status.terminal:
            return _result(found)
        return stopping(found) if wait_s is None else _accepted(found)

    def abandon() -> None:
        if cancels:
            here.callers.cancel(accepted.id, request.environ[HOLD], access.caller().sees)
            here.ring_worker()

    return until_ended(
        accepted.id, wait_s, lambda: here.store.has_ended(accepted.id), answer, abandon
    )


def _accepted(job: Job) -> Response:
    headers = {"Location": job.url}
    if request.headers.get("Prefer"):
        headers["Preference-Applied"] = request.headers["Prefer"]
    return http.send_model(job, 202, headers)


def _result(job: Job) -> Response:
    headers = {"Location": job.url}
    problem = CANCELLED if job.status is JobStatus.CANCELLED else job.error
    if problem is not None:
        return respond(problem, headers)
    if http.accepted_format() is None:
        return http.send_model(job, 200, headers)
    if not job.images:
        raise not_found(f"picture of job {job.id!r} any more")
    return send_picture(job.images[0].id, headers)


def stopping(job: Job, problem: Problem = STOPPING) -> Response:
    """The answer to a caller whose job has not ended because the server stops."""
    return respond(problem, {"Location": job.url, "Retry-After": str(STOPPED_S)})


# --- for every API -------------------------------------------------------------------------


def check_room(key: str | None = None, *, decodes: bool = True) -> None:
    """Raise ProblemError 429 or 507 if the queue or the disk has no room for another job.

    A request whose key was used before needs no room. Nor is the queue looked at for one that
    `decodes` no pictures, since `accept` does so too.
    """
    here = context()
    free = here.free_bytes()
    if free < here.settings.queue.min_free_bytes:
        detail = f"only {free} bytes are left; nothing is accepted"
        raise ProblemError(507, "disk-full", "The disk is full", detail)
    if not decodes:
        return
    try:
        here.store.check_room(access.caller().client, key)
    except QueueFullError as error:
        raise _full(error) from None


def prepare(
    asked: AnyRequest, files: Mapping[str, bytes | Decoded], fingerprint: str
) -> PreparedRequest:
    """Prepare a request of the current caller; see `Preparer.prepare`."""
    sees, accepted = access.caller().sees, http.accepted_format()
    return context().preparer.prepare(asked, files, fingerprint, sees, accepted)


def accept(
    taken: PreparedRequest,
    key: str | None = None,
    old_fingerprint: str | None = None,
    *,
    collapses: bool = False,
    is_retry: bool = False,
    wanted_s: float | None = None,
) -> tuple[Job, bool]:
    """Put a job of the current caller in the queue. It is on disk when this returns.

    The current request holds the job until it ends, see `Callers`. `key` is an `Idempotency-Key`;
    see `NewJob` for the rest. ProblemError is 409, 422 or 429.

    Returns:
        The job, and whether it is new.
    """
    here = context()
    uploads = taken.store(here.files)
    who = access.caller()
    new = NewJob(
        who.client,
        who.name,
        taken.request,
        taken.workload,
        uploads,
        taken.fingerprint,
        key,
        urgency=http.urgency(request.headers.get("Priority", "")),
        request_id=g.request_id,
        api=g.get("api"),
        collapses=collapses,
        is_retry=is_retry,
        wanted_s=wanted_s,
        webhook=taken.webhook,
        notes=taken.notes,
        old_fingerprint=old_fingerprint,
    )
    fresh = False
    try:
        accepted, fresh = here.callers.accept(new, request.environ[HOLD])
    except IdempotencyConflictError:
        raise ProblemError(
            422,
            "idempotency",
            "Idempotency-Key used before",
            "this key belongs to a different request; use a new one for a new request",
        ) from None
    except QueueFullError as error:
        raise _full(error) from None
    except SourceGoneError as error:
        detail = f"picture {error.name!r} was deleted while this request was read"
        raise ProblemError(409, "source", SOURCE_GONE, detail) from None
    finally:
        if not fresh:  # refused, failed, or a repeat: no job refers to these files
            here.delete_files(upload.id for upload in uploads)
    here.ring_worker()
    return accepted, fresh


@contextlib.contextmanager
def all_or_none(
    wanted_s: float | None = None,
) -> Iterator[Callable[[PreparedRequest], Job]]:
    """Put all jobs of one request in the queue, or cancel them again if one is refused.

    For clients that repeat unanswered requests, a repeat gets the jobs of the first one. It is a
    repeat if it has the same `Idempotency-Key`, or if it is equal to a request whose jobs are
    unfinished and the SDK says that it asks again, or nobody waits for these jobs. Equal requests
    of several people have several pictures. The jobs of a first request are not cancelled.

    Args:
        wanted_s: see `NewJob`.

    Yields:
        A function that accepts a job and returns it; it raises as `accept`.
    """
    placed: list[str] = []
    given = request.headers.get("Idempotency-Key")
    is_retry = _retries() > 0

    def take(taken: PreparedRequest) -> Job:
        key = None
        if given:  # one for each job of the request
            key = sha256(f"{given} {taken.fingerprint}".encode()).hexdigest()
        accepted, fresh = accept(
            taken, key, collapses=key is None, is_retry=is_retry, wanted_s=wanted_s
        )
        if fresh:
            placed.append(accepted.id)
        return accepted

    try:
        yield take
    except ProblemError:
        for job_id in placed:
            context().callers.cancel(job_id, request.environ[HOLD], access.caller().client)
        context().ring_worker()
        raise


def _retries() -> int:
    """How often the SDK that sends the current request says that it has sent it before."""
    text = request.headers.get("X-Stainless-Retry-Count", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def job(job_id: str) -> Job:
    """A job of the current caller, in its current state. ProblemError 404 if it was deleted."""
    found = context().store.job(job_id, access.caller().sees)
    if found is None:
        raise not_found(f"job {job_id!r} any more")
    return found


def when_ended(
    job_ids: Sequence[str],
    then: Callable[[Sequence[Job]], Response],
    each: Callable[[Job], Response | None] = lambda _: None,
) -> Response:
    """Answer the current request when all jobs have ended. No thread waits for that.

    `then` answers with the ended jobs, and may wait for others in turn. `each` is called with each
    job as it ends, and may answer without waiting for the rest. The jobs go on if the caller
    disconnects.
    """

    def wait(left: Sequence[str]) -> Response:
        if not left:
            return then([job(job_id) for job_id in job_ids])
        first, *rest = left
        return until_ended(
            first,
            None,
            has_ended=lambda: context().store.has_ended(first),
            answer=lambda: each(job(first)) or wait(rest),
            abandon=lambda: None,
        )

    return wait(job_ids)


def _full(error: QueueFullError) -> ProblemError:
    if error.whose == "client":
        detail = f"{error.pending} of your jobs wait or run, and one client may not have more"
    else:
        detail = f"{error.pending} jobs of all clients wait or run, and there may not be more"
    return ProblemError(
        429,
        "queue-full",
        "The queue is full",
        f"{detail}; ask again in {error.retry_after_s} s",
        headers={"Retry-After": str(error.retry_after_s)},
    )
