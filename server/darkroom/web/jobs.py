"""/jobs and event streams."""

import json
from collections.abc import Iterator
from queue import Empty
from time import monotonic

from flask import Blueprint, Response, request, stream_with_context
from pydantic import BaseModel, ConfigDict, Field

from darkroom.jobs.tail import Subscription
from darkroom.schemas import Event, FieldError, Job, JobPage, JobStatus, Problem
from darkroom.web import auth
from darkroom.web.connection import LOOK_FOR_CALLER_S, caller_is_gone
from darkroom.web.context import context
from darkroom.web.errors import invalid, not_found
from darkroom.web.openapi import answers, document, read_query
from darkroom.web.operations import EVENTS, LAST_EVENT_ID
from darkroom.web.rendering import send_model

blueprint = Blueprint("jobs", __name__)


MAX_CURSOR = 2**63 - 1  # of SQL


class JobQuery(BaseModel):
    """Which jobs to list."""

    model_config = ConfigDict(extra="forbid")

    cursor: int | None = Field(
        None, ge=1, le=MAX_CURSOR, description="`next_cursor` of the page before."
    )
    limit: int = Field(20, ge=1, le=100)
    status: JobStatus | None = None


@document.route(
    blueprint, "GET", "/jobs", query=JobQuery, resp=answers(HTTP_200=JobPage), tags=["jobs"]
)
def list_jobs() -> Response:
    """My jobs, newest first; to an owner everybody's."""
    query = read_query(JobQuery)
    jobs, cursor = context().store.jobs(
        auth.caller().sees, before=query.cursor, limit=query.limit, status=query.status
    )
    return send_model(
        JobPage(jobs=tuple(jobs), next_cursor=None if cursor is None else str(cursor))
    )


@document.route(blueprint, "GET", "/jobs/<job_id>", resp=answers(HTTP_200=Job), tags=["jobs"])
def show_job(job_id: str) -> Response:
    """How a job stands."""
    return send_model(find_job(job_id))


@document.route(blueprint, "DELETE", "/jobs/<job_id>", resp=answers(HTTP_200=Job), tags=["jobs"])
def cancel_job(job_id: str) -> Response:
    """Cancel a job. A running one stops within one step; a finished one stays as it is."""
    here = context()
    job = here.store.cancel(job_id, auth.caller().sees)
    if job is None:
        raise not_found(f"job {job_id!r}")
    here.ring_worker()
    return send_model(job)


@document.route(
    blueprint,
    "GET",
    "/jobs/<job_id>/events",
    resp=answers(HTTP_200=None, HTTP_204=None, HTTP_400=Problem),
    sends={200: EVENTS},
    takes=(LAST_EVENT_ID,),
    tags=["jobs"],
)
def job_events(job_id: str) -> Response:
    """What happens to a job, as `text/event-stream`, from its beginning or `Last-Event-ID`.

    Events and their data, beside `job_id`: `queued` {position, eta_seconds}, `started` {attempt},
    `progress` {step, steps, eta_seconds}, `preview` {image: a data URI}, `note` {note}, `image`
    {image}, and at the end one of `succeeded`, `failed` {problem} and `cancelled`.

    Ends after the job's last event. A client that reconnects after that gets 204, which tells an
    `EventSource` to stop.
    """
    job = find_job(job_id)
    after = _last_event_id() or 0
    if job.status.terminal and after and not context().store.events_after(after, job_id, 1):
        return Response(status=204)
    return _stream(job_id, after)


@document.route(
    blueprint,
    "GET",
    "/events",
    resp=answers(HTTP_200=None, HTTP_400=Problem),
    sends={200: EVENTS},
    takes=(LAST_EVENT_ID,),
    tags=["jobs"],
)
def all_events() -> Response:
    """What happens to all jobs that I may see, from now or `Last-Event-ID` on. Does not end."""
    after = _last_event_id()
    return _stream(None, context().store.last_event_id() if after is None else after)


def find_job(job_id: str) -> Job:
    """A job of the caller's.

    Raises:
        ProblemError: 404.
    """
    job = context().store.job(job_id, auth.caller().sees)
    if job is None:
        raise not_found(f"job {job_id!r}")
    return job


def _last_event_id() -> int | None:
    given = request.headers.get("Last-Event-ID") or request.args.get("last_event_id")
    if given is None:
        return None
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        detail = "is the id of an event: a whole number"
        raise invalid([FieldError(pointer="#/Last-Event-ID", detail=detail)], 400)
    return int(given)


def _stream(job_id: str | None, after: int) -> Response:
    return Response(
        stream_with_context(_events(job_id, after, auth.caller().sees)),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _events(job_id: str | None, after: int, client: str | None) -> Iterator[str]:
    """First what the log has, then what comes, each event once."""
    here = context()
    mine: dict[str, bool] = {} if job_id is None else {job_id: True}
    with here.tail.subscribe(job_id) as subscription:
        yield "retry: 1000\n\n"
        while logged := here.store.events_after(after, job_id):
            for event in logged:
                after = event.id
                if _is_mine(event, mine, client):
                    yield render(event)
                    if job_id is not None and event.type.terminal:
                        return
        for coming in _coming(subscription, here.settings.web.heartbeat_s):
            if coming is None:
                yield ": still here\n\n"
            elif coming.id > after and _is_mine(coming, mine, client):
                yield render(coming)
                if job_id is not None and coming.type.terminal:
                    return


def _coming(subscription: Subscription, heartbeat_s: float) -> Iterator[Event | None]:
    """Events as they come, None after each `heartbeat_s` without one, until the caller is gone."""
    beat_at = monotonic() + heartbeat_s
    while not caller_is_gone():
        left = max(0.0, beat_at - monotonic())
        try:
            yield subscription.queue.get(timeout=min(left, LOOK_FOR_CALLER_S))
        except Empty:
            if left > LOOK_FOR_CALLER_S:
                continue
            yield None
        beat_at = monotonic() + heartbeat_s


def _is_mine(event: Event, mine: dict[str, bool], client: str | None) -> bool:
    if client is None:
        return True
    if event.job_id not in mine:
        mine[event.job_id] = context().store.owners({event.job_id}).get(event.job_id) == client
    return mine[event.job_id]


def render(event: Event) -> str:
    """An event in the format of server-sent events (HTML standard, section 9.2)."""
    data = json.dumps({"job_id": event.job_id, **event.data}, ensure_ascii=False)
    return f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n"
