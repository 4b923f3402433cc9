"""/jobs, their event streams and their timelines."""

from functools import partial
from hashlib import sha256

from flask import Blueprint, Response, request
from pydantic import Field

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError, invalid_field, not_found
from darkroom.api.http import read_query, send_model
from darkroom.api.openapi import IF_NONE_MATCH, Operation, header, route
from darkroom.api.routes.images import CACHE, read_file
from darkroom.asgi.wait import EventStream, suspend
from darkroom.errors import Message, message
from darkroom.images import codec
from darkroom.requests import MAX_IMAGES_PER_JOB, Schema
from darkroom.responses import Explanation, Job, JobPage, JobStatus, Problem

blueprint = Blueprint("jobs", __name__)

MAX_CURSOR = 2**63 - 1  # of SQL
EVENTS = ("text/event-stream",)
LAST_EVENT_ID = header(
    "Last-Event-ID", "The stream continues after this event.", pattern="^[0-9]{1,18}$"
)


class JobQuery(Schema):
    """Filter and paging of a list of jobs."""

    cursor: int | None = Field(
        None, ge=1, le=MAX_CURSOR, description="`next_cursor` of the page before."
    )
    limit: int = Field(20, ge=1, le=100)
    status: JobStatus | None = None
    client_id: str | None = Field(
        None, max_length=200, description="Of this client alone: `client_id` of its `GET /me`."
    )


class TimelineQuery(Schema):
    """Which of a job's pictures is shown."""

    index: int = Field(0, ge=0, le=MAX_IMAGES_PER_JOB - 1, description="`index` of the picture.")


class ExplainQuery(Schema):
    """Which of a job's pictures is explained."""

    index: int | None = Field(
        None, ge=0, le=MAX_IMAGES_PER_JOB - 1, description="`index` of the picture; all if absent."
    )


@route(blueprint, "GET", "/jobs", Operation({200: JobPage}, query=JobQuery))
def list_jobs() -> Response:
    """List the caller's jobs, newest first. Owners see all jobs."""
    query, sees = read_query(JobQuery), access.caller().sees
    if sees is not None and query.client_id not in (None, sees):
        return send_model(JobPage(jobs=(), next_cursor=None))  # as for a client that is not there
    jobs, cursor = context().store.jobs(
        query.client_id or sees, before=query.cursor, limit=query.limit, status=query.status
    )
    return send_model(
        JobPage(jobs=tuple(jobs), next_cursor=None if cursor is None else str(cursor))
    )


@route(blueprint, "GET", "/jobs/<job_id>", Operation({200: Job}))
def show_job(job_id: str) -> Response:
    """Show a job."""
    return send_model(_find_job(job_id))


@route(blueprint, "DELETE", "/jobs/<job_id>", Operation({200: Job}))
def cancel_job(job_id: str) -> Response:
    """Cancel a job. A running one stops within one step; a finished one stays as it is."""
    here = context()
    job = here.store.cancel(job_id, access.caller().sees)
    if job is None:
        raise not_found(f"job {job_id!r}")
    here.ring_worker()
    here.doorbells.ring("web")  # of which another may have those who follow the job
    return send_model(job)


@route(
    blueprint,
    "GET",
    "/jobs/<job_id>/events",
    Operation({200: None, 204: None, 400: Problem}, sends=EVENTS, takes=(LAST_EVENT_ID,)),
)
def job_events(job_id: str) -> Response:
    """Stream the events of a job, as `text/event-stream`, from the first or `Last-Event-ID` on.

    Events and their data, beside `job_id`: `queued` {position, eta_seconds}, `started` {attempt},
    `progress` {step, steps, eta_seconds}, `preview` {index, step, steps: of one picture; image: a
    data URI}, `note` {note}, `image` {image}, and at the end one of `succeeded`, `failed` {problem}
    and `cancelled`.

    While the job waits, `queued` is sent again when its position or ETA changes. Such an event
    has no id and is not stored, so it is not repeated on a reconnect.

    Ends after the job's last event. A client that reconnects after that gets 204, which stops an
    `EventSource`.
    """
    store, sees = context().store, access.caller().sees
    owner = store.owners({job_id}).get(job_id)  # many may listen; this is all they need of the job
    if owner is None or sees not in (None, owner):
        raise not_found(f"job {job_id!r}")
    after = _last_event_id() or 0
    if after and store.has_ended(job_id) and not store.events_after(after, job_id, 1):
        return Response(status=204)
    return _stream(job_id, after)


@route(
    blueprint,
    "GET",
    "/events",
    Operation({200: None, 400: Problem}, sends=EVENTS, takes=(LAST_EVENT_ID,)),
)
def all_events() -> Response:
    """Stream the events of all visible jobs, from now or `Last-Event-ID` on. Does not end."""
    return _stream(None, _last_event_id())


@route(
    blueprint,
    "GET",
    "/jobs/<job_id>/timeline",
    Operation(
        {200: None, 304: None},
        query=TimelineQuery,
        sends=("image/webp",),
        takes=(IF_NONE_MATCH,),
    ),
)
def show_timeline(job_id: str) -> Response:
    """The previews of one of a job's pictures, then that picture, as a small animated WebP.

    While the job runs, it holds the previews so far. 404 while there are none.
    """
    index = read_query(TimelineQuery).index
    job = _find_job(job_id)  # before its previews: if it has ended, no more of them come
    if index >= int(job.request.get("num_images", 1)):
        raise not_found(f"picture {index} of job {job_id!r}")
    previews = context().store.previews(job_id, codec.MAX_FRAMES, index)
    if not previews:
        if job.status.terminal:
            why = f"there are no previews; the job has ended: {job.status}"
        else:
            why = f"no previews yet; the job is {job.status}"
        raise ProblemError(404, "no-previews", "No previews", why)
    picture = next((image for image in job.images if image.index == index), None)
    etag = f"{previews[-1].id}-{picture.sha256 if picture else 'developing'}"
    response = Response(content_type="image/webp")
    response.set_etag(etag)
    response.headers["Cache-Control"] = CACHE if job.status.terminal else "private, no-cache"
    if not request.if_none_match.contains(etag):
        finished = None if picture is None else read_file(picture.id)
        with context().rendering:
            response.data = codec.animate([preview.webp for preview in previews], finished)
    response.make_conditional(request)
    return response


@route(
    blueprint,
    "GET",
    "/jobs/<job_id>/explain",
    Operation({200: Explanation, 304: None}, query=ExplainQuery, takes=(IF_NONE_MATCH,)),
)
def explain_job(job_id: str) -> Response:
    """Explain how a job's pictures were made: tokens and their maps, steps, and seconds.

    For a job whose request has `explain`. While it runs, those pictures are explained that are
    ready. 404 while there are none.
    """
    index = read_query(ExplainQuery).index
    job = _find_job(job_id)  # before its explanations: if it has ended, no more of them come
    stored = [each for each in context().store.explanations(job_id) if index in (None, each.index)]
    if not stored:
        raise ProblemError(404, "no-explanation", "No explanation", _why_no_explanation(job))
    etag = sha256("".join(each.sha256 for each in stored).encode()).hexdigest()
    response = Response(content_type="application/json")
    response.set_etag(etag)
    response.headers["Cache-Control"] = CACHE if job.status.terminal else "private, no-cache"
    if not request.if_none_match.contains(etag):
        images = b",".join(read_file(each.name) for each in stored)
        response.data = b'{"job_id":"%b","images":[%b]}' % (job_id.encode(), images)
    response.make_conditional(request)
    return response


def _why_no_explanation(job: Job) -> Message:
    if not job.request.get("explain"):
        return message(
            "explain_not_asked",
            "this job was not asked to explain its pictures; send its request again with "
            '"explain": true',
        )
    if not job.status.terminal:
        return message(
            "explain_not_yet", "no picture is ready yet; the job is {status}", status=job.status
        )
    return message(
        "explain_gone",
        "there is no such picture, or it was deleted; the job has ended: {status}",
        status=job.status,
    )


def _find_job(job_id: str) -> Job:
    job = context().store.job(job_id, access.caller().sees)
    if job is None:
        raise not_found(f"job {job_id!r}")
    return job


def _last_event_id() -> int | None:
    given = request.headers.get("Last-Event-ID") or request.args.get("last_event_id")
    if given is None:
        return None
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise invalid_field("Last-Event-ID", "is the id of an event: a whole number", 400)
    return int(given)


def _stream(job_id: str | None, after: int | None) -> Response:
    """Events after an id; after the newest if it is None, or from another database."""
    here, who = context(), access.caller()
    if after != 0:
        newest = here.store.last_event_id()
        after = newest if after is None else min(after, newest)
    allowed = partial(access.is_let_in, who.token_id, here.tokens)
    return suspend(
        EventStream(job_id, after, who.sees, allowed),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
