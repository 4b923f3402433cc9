"""GET /sdapi/v1/progress, POST /interrupt and /skip: of the caller's own jobs."""

from flask import Blueprint, Response, jsonify, request

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.compat.a1111.answers import job_timestamp
from darkroom.compat.a1111.previewing import preview
from darkroom.responses import Job, JobStatus

blueprint = Blueprint("a1111_progress", __name__, url_prefix="/sdapi/v1")

NEARLY_DONE = 0.99  # 1.0 would say that the picture is there
TRUE = ("1", "true", "yes", "on")


@blueprint.get("/progress")
def progress() -> Response:
    """How far the caller's jobs are, and what the one at work looks like."""
    jobs = context().store.unfinished(access.caller().client)
    current = _current(jobs)
    if current is None:
        return jsonify(_state(0.0, 0.0, _idle(), None, None))
    steps = sum(job.progress.steps for job in jobs)
    done = sum(job.progress.step for job in jobs)
    etas = [job.eta_seconds for job in jobs if job.eta_seconds is not None]
    images = max(1, int(current.request.get("num_images", 1)))
    state = _idle() | {
        "job": f"task({current.id})",
        "job_count": len(jobs),
        "job_timestamp": job_timestamp(current),
        "sampling_step": current.progress.step // images,
        "sampling_steps": current.progress.steps // images,
    }
    share = min(NEARLY_DONE, done / steps) if steps else 0.0
    shown = None
    if request.args.get("skip_current_image", "").lower() not in TRUE:
        shown = preview(current.id)
    return jsonify(_state(share, max(etas, default=0.0), state, shown, f"task({current.id})"))


@blueprint.post("/interrupt")
def interrupt() -> Response:
    """Cancel all that the caller waits for; what they are waiting for is answered as it is."""
    _cancel(context().store.unfinished(access.caller().client))
    return jsonify({})


@blueprint.post("/skip")
def skip() -> Response:
    """Cancel the one at work, and go on with the next."""
    current = _current(context().store.unfinished(access.caller().client))
    _cancel([] if current is None else [current])
    return jsonify({})


def _current(jobs: list[Job]) -> Job | None:
    """The one at work, else the next one to be."""
    running = (job for job in jobs if job.status is JobStatus.RUNNING)
    return next(running, jobs[0] if jobs else None)


def _cancel(jobs: list[Job]) -> None:
    for job in jobs:
        context().store.cancel(job.id, access.caller().client)
    if jobs:
        context().ring_worker()


def _idle() -> dict[str, object]:
    return {
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


def _state(
    share: float, eta_s: float, state: dict[str, object], shown: str | None, task: str | None
) -> dict[str, object]:
    return {
        "progress": round(share, 4),
        "eta_relative": round(eta_s, 2),
        "state": state,
        "current_image": shown,
        "textinfo": None,
        "current_task": task,
    }
