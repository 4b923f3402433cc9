"""GET /sdapi/v1/progress, POST /interrupt and /skip: the client's own jobs."""

from collections.abc import Sequence

from flask import Blueprint, Response, jsonify, request

from darkroom.api.auth import access
from darkroom.api.context import Context, context
from darkroom.compat.a1111.answers import job_timestamp, last_preview
from darkroom.responses import Job, JobStatus

blueprint = Blueprint("a1111_progress", __name__, url_prefix="/sdapi/v1")

NEARLY_DONE = 0.99  # 1.0 would tell clients that the picture is there
TRUE = ("1", "true", "yes", "on")


@blueprint.get("/progress")
def progress() -> Response:
    """The progress of all the client's unfinished jobs, and a preview of the current one."""
    here = context()
    jobs = _unfinished(here)
    current = _current(jobs)
    state: dict[str, object] = {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": "",
        "job_count": 0,
        "job_timestamp": "0",
        "job_no": 0,
        "sampling_step": 0,
        "sampling_steps": 0,
    }
    done, eta_s, preview, task = 0.0, 0.0, None, None
    if current is not None:
        task = f"task({current.id})"
        images = max(1, int(current.request.get("num_images", 1)))
        state |= {
            "job": task,
            "job_count": len(jobs),
            "job_timestamp": job_timestamp(current),
            "sampling_step": current.progress.step // images,
            "sampling_steps": current.progress.steps // images,
        }
        steps = sum(job.progress.steps for job in jobs)
        done = sum(job.progress.step for job in jobs) / steps if steps else 0.0
        eta_s = max((job.eta_seconds for job in jobs if job.eta_seconds is not None), default=0.0)
        if request.args.get("skip_current_image", "").lower() not in TRUE:
            preview = last_preview(here, current)
    return jsonify(
        progress=round(min(NEARLY_DONE, done), 4),
        eta_relative=round(eta_s, 2),
        state=state,
        current_image=preview,
        textinfo=None,
        current_task=task,
    )


@blueprint.post("/interrupt")
def interrupt() -> Response:
    """Cancel all the client's jobs; requests waiting for them get what was finished."""
    here = context()
    _cancel(here, _unfinished(here))
    return jsonify({})


@blueprint.post("/skip")
def skip() -> Response:
    """Cancel the client's current job; its next one follows."""
    here = context()
    current = _current(_unfinished(here))
    _cancel(here, [] if current is None else [current])
    return jsonify({})


def _unfinished(here: Context) -> Sequence[Job]:
    """The client's jobs that wait or run, oldest first."""
    return here.store.unfinished(access.caller().client)


def _current(jobs: Sequence[Job]) -> Job | None:
    """The first running job, else the first that waits."""
    running = (job for job in jobs if job.status is JobStatus.RUNNING)
    return next(running, jobs[0] if jobs else None)


def _cancel(here: Context, jobs: Sequence[Job]) -> None:
    """Cancel jobs, and wake the worker if there are any."""
    for job in jobs:
        here.store.cancel(job.id, access.caller().client)
    if jobs:
        here.ring_worker()
