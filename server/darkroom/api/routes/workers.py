"""/workers: who works on the queue, and who is to stop."""

from flask import Blueprint, Response

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError
from darkroom.api.http import send_model
from darkroom.api.openapi import Operation, route
from darkroom.queue.presence import UnknownWorkerError
from darkroom.responses import Problem, WorkerInfo, WorkerList

blueprint = Blueprint("workers", __name__)

CHANGES = Operation({200: WorkerInfo, 404: Problem})


@route(blueprint, "GET", "/workers", Operation({200: WorkerList}))
def list_workers() -> Response:
    """List the workers, with what each runs on, has and does. For owners."""
    access.require_owner()
    here = context()
    return send_model(WorkerList(workers=tuple(map(_with_models, here.workers.all()))))


@route(blueprint, "POST", "/workers/<name>/drain", CHANGES)
def drain_worker(name: str) -> Response:
    """Have a worker finish its jobs and claim no others, until it is resumed. For owners."""
    return _set(name, draining=True)


@route(blueprint, "POST", "/workers/<name>/resume", CHANGES)
def resume_worker(name: str) -> Response:
    """Have a worker that was told to drain claim jobs again. For owners."""
    return _set(name, draining=False)


def _set(name: str, *, draining: bool) -> Response:
    access.require_owner()
    here = context()
    try:
        found = here.workers.drain(name, draining)
    except UnknownWorkerError as error:
        raise ProblemError(404, "not-found", "Not found", str(error)) from None
    here.ring_worker()
    return send_model(_with_models(found))


def _with_models(worker: WorkerInfo) -> WorkerInfo:
    """With the models in this server's own folders, if it is a worker that uses them."""
    here = context()
    if worker.name not in here.fleet().here:
        return worker
    names = tuple(info.name for info in here.local_models.infos())
    return worker.model_copy(update={"models": names})
