"""/jobs/{id}/timeline: watch a picture develop."""

from flask import Blueprint, Response, request

from darkroom.api.context import context
from darkroom.api.errors import ProblemError
from darkroom.api.openapi import route
from darkroom.api.operations import IF_NONE_MATCH, TIMELINE
from darkroom.api.routes.images import CACHE, read_file
from darkroom.api.routes.jobs import find_job
from darkroom.images import timeline
from darkroom.responses import Job

blueprint = Blueprint("timeline", __name__)


@route(
    blueprint,
    "GET",
    "/jobs/<job_id>/timeline",
    answers={200: None, 304: None},
    sends={200: TIMELINE},
    takes=(IF_NONE_MATCH,),
    tag="jobs",
)
def show_timeline(job_id: str) -> Response:
    """The previews of a job's first picture, then that picture, as one small animated WebP.

    Of a job that still runs it is what there is so far. 404 while there are no previews.
    """
    job = find_job(job_id)  # before its previews: if it has ended, no more of them come
    previews = context().store.previews(job_id, timeline.MAX_FRAMES)
    if not previews:
        raise ProblemError(404, "no-previews", "No previews", _why_none(job))
    picture = next((image for image in job.images if image.index == 0), None)
    etag = f"{previews[-1].id}-{picture.sha256 if picture else 'developing'}"
    response = Response(content_type="image/webp")
    response.set_etag(etag)
    response.headers["Cache-Control"] = CACHE if job.status.terminal else "private, no-cache"
    if not request.if_none_match.contains(etag):
        finished = None if picture is None else read_file(picture.id)
        with context().rendering:
            response.data = timeline.animate([preview.webp for preview in previews], finished)
    response.make_conditional(request)
    return response


def _why_none(job: Job) -> str:
    if job.status.terminal:
        return f"there are no previews; the job has ended: {job.status}"
    return f"no previews yet; the job is {job.status}"
