"""What clients ask besides pictures: their options, their progress, and what the server has.

Options and jobs are the client's own, where A1111 has one set for all.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from flask import Blueprint, Response, jsonify, request

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError
from darkroom.catalog.hashes import AUTO_V2
from darkroom.compat.a1111 import infotext, samplers, translate
from darkroom.compat.a1111.extras import FILTERS, LANCZOS, LATENT_UPSCALERS, upscaler_names
from darkroom.compat.a1111.jobs import API, job_timestamp, last_preview
from darkroom.compat.a1111.options import (
    CLIP_SKIP,
    DEFAULTS,
    FORMAT,
    FORMATS,
    MODEL,
    to_keep,
    without_effect,
)
from darkroom.compat.a1111.second_pass import SD_UPSCALE
from darkroom.compat.a1111.translate import Options
from darkroom.compat.ignored import Ignored
from darkroom.ops import discovery
from darkroom.responses import Job, JobStatus

blueprint = Blueprint("a1111_status", __name__, url_prefix="/sdapi/v1")

FILTER_SCALE = 4  # as A1111 gives for its own
NEARLY_DONE = 0.99  # 1.0 would tell clients that the picture is there
TRUE = ("1", "true", "yes", "on")

Json = dict[str, Any]


# --- options -------------------------------------------------------------------------------


def client_options() -> Options:
    """The options that the current client has set."""
    return context().preferences.of(access.caller().client)


@blueprint.get("/options")
def show_options() -> Json:
    """Show the client's options: A1111's defaults, and what the client has set."""
    options = client_options()
    return {
        CLIP_SKIP: 1,
        FORMAT: "png",
        **DEFAULTS,
        **options,
        MODEL: translate.current_model(context().catalog, options).info.name,
    }


@blueprint.post("/options")
def change_options() -> Response:
    """Change some of the client's options; those without effect are kept, and named as ignored."""
    here = context()
    fields = here.bodies.read_any_json().fields
    ignored = Ignored(*without_effect(fields))
    changes = to_keep(fields, client_options())
    if fields.get(MODEL):
        model = translate.find_model(here.catalog, infotext.named(str(fields[MODEL])), MODEL)
        changes[MODEL] = model.info.name
    if CLIP_SKIP in fields:
        changes[CLIP_SKIP] = translate.parse_clip_skip(fields[CLIP_SKIP], CLIP_SKIP)
    if FORMAT in fields:
        if str(fields[FORMAT]).lower() in FORMATS:
            changes[FORMAT] = str(fields[FORMAT]).lower()
        else:
            ignored.add(FORMAT)
    if changes:
        here.preferences.change(access.caller().client, changes)
    return ignored.sent_with(jsonify({}))


# --- progress ------------------------------------------------------------------------------


@blueprint.get("/progress")
def progress() -> Json:
    """The progress of the client's current request, and a preview of its current job."""
    jobs = _current_request()
    current = _current(jobs)
    task, started, step, steps, preview = "", "0", 0, 0, None
    if current is not None:
        task, started = f"task({current.id})", job_timestamp(current)
        images = max(1, int(current.request.get("num_images", 1)))
        step, steps = current.progress.step // images, current.progress.steps // images
        if request.args.get("skip_current_image", "").lower() not in TRUE:
            preview = last_preview(current)
    ended = sum(job.status.terminal for job in jobs)
    done = sum(_share_done(job) for job in jobs) / max(1, len(jobs))
    state = {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": task,
        "job_count": len(jobs),
        "job_timestamp": started,
        "job_no": ended,
        "sampling_step": step,
        "sampling_steps": steps,
    }
    return {
        "progress": round(min(NEARLY_DONE, done), 4),
        "eta_relative": round(max((job.eta_seconds or 0.0 for job in jobs), default=0.0), 2),
        "state": state,
        "current_image": preview,
        "textinfo": None,
        "current_task": task or None,
    }


@blueprint.post("/interrupt")
def interrupt() -> Json:
    """Cancel the client's current request, which gets what was finished.

    Its other requests go on, and so do those of other programs that have its token, or none on the
    server itself.
    """
    return _cancel([job for job in _current_request() if not job.status.terminal])


@blueprint.post("/skip")
def skip() -> Json:
    """Cancel the current job of the client's current request; its next one follows."""
    current = _current(_current_request())
    return _cancel([] if current is None else [current])


def _current_request() -> Sequence[Job]:
    """The jobs of the client's request that is worked on, ended ones too, oldest first."""
    return context().store.current_request(access.caller().client, API)


def _current(jobs: Sequence[Job]) -> Job | None:
    """The first running job, else the first that waits."""
    running = (job for job in jobs if job.status is JobStatus.RUNNING)
    return next(running, next((job for job in jobs if not job.status.terminal), None))


def _share_done(job: Job) -> float:
    """How much of a job is done, 0 to 1."""
    return 1.0 if job.status.terminal else job.progress.step / max(1, job.progress.steps)


def _cancel(jobs: Sequence[Job]) -> Json:
    for job in jobs:
        context().store.cancel(job.id, access.caller().client)
    if jobs:
        context().ring_worker()
    return {}


# --- what the server has -------------------------------------------------------------------

# Lists of things that do not exist here. Some clients give up if one is answered with 404.
EMPTY = (
    *("sd-vae", "sd-modules", "hypernetworks", "face-restorers", "realesrgan-models"),
    *("prompt-styles", "extensions"),
)
GET: dict[str, Any] = {
    **{name: [] for name in EMPTY},
    "samplers": samplers.sampler_list(),
    "schedulers": samplers.schedule_list(),
    "latent-upscale-modes": [{"name": name} for name in LATENT_UPSCALERS],  # of hires fix only
    "scripts": {"txt2img": [], "img2img": [SD_UPSCALE]},
    # As A1111 answers if it is not known; `/metrics` has it.
    "memory": {"ram": {"error": "see /metrics"}, "cuda": {"error": "see /metrics"}},
}
# Nothing to do: folders are read on each request, and the worker loads what it needs.
POST = (
    *("refresh-checkpoints", "refresh-loras", "refresh-vae", "refresh-embeddings"),
    *("unload-checkpoint", "reload-checkpoint"),
)


def _always(answer: Any) -> Callable[[], Response]:
    def view() -> Response:
        return jsonify(answer)

    return view


for _name, _answer in GET.items():
    blueprint.add_url_rule(f"/{_name}", _name, _always(_answer), methods=["GET"])
for _name in POST:
    blueprint.add_url_rule(f"/{_name}", _name, _always({}), methods=["POST"])


@blueprint.get("/sd-models")
def models() -> list[Json]:
    """The models, with the hashes that are known so far: of those that are one file."""
    here = context()
    found = []
    for entry in here.catalog.entries():
        name, digest = entry.info.name, here.hashes.of(entry.path)
        hashes = {"hash": digest and digest[:AUTO_V2], "sha256": digest}
        found.append(
            {"title": name, "model_name": name, **hashes, "filename": name, "config": None}
        )
    return found


@blueprint.get("/loras")
def loras() -> list[Json]:
    """The LoRAs, without the metadata in their files, which can be megabytes.

    An alias is the name that the trainer gave, where it is that of one LoRA alone.
    """
    entries = context().adapters.loras.entries()
    uses = Counter(name for entry in entries for name in (entry.info.name, *entry.aliases))
    return [
        {
            "name": name,
            "alias": next((a for a in reversed(entry.aliases) if uses[a] == 1), name),
            "path": entry.path.name,
            "metadata": {},
        }
        for entry, name in ((entry, entry.info.name) for entry in entries)
    ]


@blueprint.get("/embeddings")
def embeddings() -> Json:
    """The textual inversions."""
    loaded = {
        entry.info.name: {
            **dict.fromkeys(("step", "sd_checkpoint", "sd_checkpoint_name")),
            "shape": entry.info.text_dim,
            "vectors": entry.info.vectors,
        }
        for entry in context().adapters.embeddings.entries()
    }
    return {"loaded": loaded, "skipped": {}}


@blueprint.get("/upscalers")
def list_upscalers() -> list[Json]:
    """The upscalers, except for those of latents: filters, then networks."""
    scales = dict.fromkeys(FILTERS, FILTER_SCALE)
    scales |= {entry.info.name: entry.info.scale for entry in context().upscalers.entries()}
    return [
        {
            "name": name,
            "model_name": None if name in FILTERS else name,
            "model_path": None,
            "model_url": None,
            "scale": float(scale),
        }
        for name, scale in scales.items()
    ]


@blueprint.get("/script-info")
def script_info() -> list[Json]:
    """The arguments of the scripts."""
    blank = {"label": "", "value": "", **dict.fromkeys(("minimum", "maximum", "step", "choices"))}
    overlap = {"label": "Tile overlap", "value": 64, "minimum": 0, "maximum": 256, "step": 16}
    upscaler = {"label": "Upscaler", "value": LANCZOS, "choices": upscaler_names()}
    scale = {"label": "Scale Factor", "value": 2.0, "minimum": 1.0, "maximum": 4.0, "step": 0.05}
    arguments = [blank, blank | overlap, blank | upscaler, blank | scale]
    return [{"name": SD_UPSCALE, "is_alwayson": False, "is_img2img": True, "args": arguments}]


@blueprint.get("/cmd-flags")
def flags() -> Json:
    """A1111's command line, in which clients look for features."""
    settings = context().settings
    listens = not discovery.is_local_only(settings.host)
    return {"api": True, "listen": listens, "port": settings.port}


@blueprint.post("/interrogate")
def interrogate() -> Json:
    """Refuse to describe a picture: no model here does it."""
    detail = f"{request.path}: no model on this server describes pictures"
    raise ProblemError(501, "interrogate", "Not implemented", detail)
