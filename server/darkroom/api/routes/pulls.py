"""/models/pull and /pulls: downloads of models, for owners."""

from flask import Blueprint, Response

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError, not_found
from darkroom.api.http import send_model
from darkroom.api.openapi import Operation, route
from darkroom.catalog import downloads
from darkroom.catalog.downloads import Wanted
from darkroom.ops.puller import PlanError, Planning
from darkroom.queue.pulls import UnknownPullError
from darkroom.requests import PullRequest
from darkroom.responses import Problem, Pull, PullList, PullPlan

blueprint = Blueprint("pulls", __name__)

# Why a download cannot be planned → status, kind and title of the problem.
REFUSED = {
    "pull": (422, "pull", "It cannot be downloaded"),
    "taken": (409, "model-exists", "It is there already"),
    "room": (507, "disk-full", "The disk is full"),
    "hub": (502, "hub", "The hub does not answer"),
    "busy": (503, "busy", "Busy"),
}


@route(
    blueprint,
    "POST",
    "/models/pull",
    Operation(
        {200: PullPlan, 202: Pull, 409: Problem, 502: Problem, 507: Problem}, json=PullRequest
    ),
)
def pull_model() -> Response:
    """Download a model, LoRA, embedding, upscaler or VAE from a hub. For owners.

    With `dry_run` only tell what it is, how large, and whether it fits; that takes some seconds.
    A download of the same name that has not ended is answered instead of a second one.
    """
    access.require_owner()
    here = context()
    asked = here.bodies.read_json(PullRequest)
    memories = here.store.memory()
    wanted = Wanted(asked.source.strip(), asked.name, asked.revision, asked.variant)
    try:
        found = here.puller.plan(wanted, [memory.number_bytes for memory in memories])
    except PlanError as error:
        if error.reason not in REFUSED:
            raise
        status, kind, title = REFUSED[error.reason]
        headers = {"Retry-After": "2"} if status == 503 else None
        raise ProblemError(status, kind, title, error.said, headers=headers) from None
    plan = _plan(found, [memory.budget_bytes for memory in memories])
    if asked.dry_run:
        return send_model(plan)
    if not plan.fits_on_disk:
        try:
            needed = plan.total_bytes - plan.done_bytes
            reserve = here.settings.queue.min_free_bytes
            downloads.check_room(needed, found.plan.target.parent, reserve)
        except downloads.NoRoomError as error:
            raise ProblemError(507, "disk-full", "The disk is full", error.args[0]) from None
    pull, _ = here.pulls.ask(found.plan)
    here.puller.wake()
    return send_model(pull, 202, {"Location": pull.url})


def _plan(found: Planning, budgets: list[int]) -> PullPlan:
    plan = found.plan
    free = downloads.free_bytes(plan.target.parent) - context().settings.queue.min_free_bytes
    here_bytes = min(plan.here_bytes(), plan.total_bytes)
    memory = found.memory_bytes
    fits = [needed <= budget for needed, budget in zip(memory, budgets, strict=False)]
    return PullPlan(
        source=plan.pinned.source,
        kind=plan.kind,
        name=plan.name,
        title=plan.title,
        family=found.family,
        files=plan.files,
        total_bytes=plan.total_bytes,
        done_bytes=here_bytes,
        free_bytes=max(0, free),
        fits_on_disk=plan.total_bytes - here_bytes <= free,
        memory_bytes=min(memory, default=None),
        fits=any(fits) if fits else None,
        lacks=found.lacks,
    )


@route(blueprint, "GET", "/pulls", Operation({200: PullList}))
def list_pulls() -> Response:
    """List the downloads, the newest first, with how far they are. For owners."""
    access.require_owner()
    return send_model(PullList(pulls=tuple(context().pulls.all())))


@route(blueprint, "GET", "/pulls/<pull_id>", Operation({200: Pull}))
def show_pull(pull_id: str) -> Response:
    """Show how far a download is. For owners."""
    access.require_owner()
    try:
        return send_model(context().pulls.find(pull_id))
    except UnknownPullError:
        raise not_found(f"download {pull_id!r}") from None


@route(blueprint, "DELETE", "/pulls/<pull_id>", Operation({200: Pull}))
def stop_pull(pull_id: str) -> Response:
    """Cancel a download, or take one that has ended off the list. For owners.

    What has arrived is removed, unless it is complete. One that runs ends within a second.
    """
    access.require_owner()
    here = context()
    try:
        pull = here.pulls.stop(pull_id)
    except UnknownPullError:
        raise not_found(f"download {pull_id!r}") from None
    here.puller.wake()
    return send_model(pull)
