"""Lists of models, samplers, LoRAs and upscalers, and what else clients ask for at their start."""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from darkroom.api.context import context
from darkroom.api.errors import ProblemError
from darkroom.compat.a1111 import samplers
from darkroom.compat.a1111.images import FILTERS, LANCZOS, LATENT_UPSCALERS, upscaler_names
from darkroom.compat.a1111.translate import SD_UPSCALE

blueprint = Blueprint("a1111_listings", __name__, url_prefix="/sdapi/v1")

# Lists of things that do not exist here. Some clients give up if one is answered with 404.
EMPTY = (
    *("sd-vae", "sd-modules", "hypernetworks", "face-restorers", "realesrgan-models"),
    *("prompt-styles", "extensions"),
)
# Nothing to do: folders are read on each request, and the worker loads what it needs.
NOTHING_TO_DO = (
    *("refresh-checkpoints", "refresh-loras", "refresh-vae", "refresh-embeddings"),
    *("unload-checkpoint", "reload-checkpoint"),
)
FILTER_SCALE = 4  # as A1111 gives for its own


def _empty() -> Response:
    """An empty list."""
    return jsonify([])


def _done() -> Response:
    """An empty object."""
    return jsonify({})


for _name in EMPTY:
    blueprint.add_url_rule(f"/{_name}", _name, _empty, methods=["GET"])
for _name in NOTHING_TO_DO:
    blueprint.add_url_rule(f"/{_name}", _name, _done, methods=["POST"])


@blueprint.get("/sd-models")
def models() -> Response:
    """The models, without hashes, which would have to read gigabytes."""
    names = [info.name for info in context().catalog.infos()]
    return jsonify(
        [
            {
                "title": name,
                "model_name": name,
                "hash": None,
                "sha256": None,
                "filename": name,
                "config": None,
            }
            for name in names
        ]
    )


@blueprint.get("/samplers")
def list_samplers() -> Response:
    """Our schedulers, as A1111's samplers."""
    return jsonify(samplers.sampler_list())


@blueprint.get("/schedulers")
def list_schedules() -> Response:
    """Spacings of noise levels, which A1111 calls schedule types."""
    return jsonify(samplers.schedule_list())


@blueprint.get("/loras")
def loras() -> Response:
    """The LoRAs, without the metadata in their files, which can be megabytes."""
    return jsonify(
        [
            {
                "name": entry.info.name,
                "alias": entry.info.title or entry.info.name,
                "path": entry.path.name,
                "metadata": {},
            }
            for entry in context().adapters.loras.entries()
        ]
    )


@blueprint.get("/embeddings")
def embeddings() -> Response:
    """The textual inversions."""
    loaded = {
        entry.info.name: {
            "step": None,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
            "shape": entry.info.text_dim,
            "vectors": entry.info.vectors,
        }
        for entry in context().adapters.embeddings.entries()
    }
    return jsonify(loaded=loaded, skipped={})


@blueprint.get("/upscalers")
def list_upscalers() -> Response:
    """The upscalers, except for those of latents: filters, then networks."""
    scales = dict.fromkeys(FILTERS, FILTER_SCALE)
    scales |= {entry.info.name: entry.info.scale for entry in context().upscalers.entries()}
    return jsonify(
        [
            {
                "name": name,
                "model_name": None if name in FILTERS else name,
                "model_path": None,
                "model_url": None,
                "scale": float(scale),
            }
            for name, scale in scales.items()
        ]
    )


@blueprint.get("/latent-upscale-modes")
def latent_upscale_modes() -> Response:
    """The upscalers of latents, which only hires fix takes."""
    return jsonify([{"name": name} for name in LATENT_UPSCALERS])


@blueprint.get("/scripts")
def scripts() -> Response:
    """The scripts that a request may name."""
    return jsonify(txt2img=[], img2img=[SD_UPSCALE])


@blueprint.get("/script-info")
def script_info() -> Response:
    """The arguments of the scripts."""
    upscalers = list(upscaler_names(context().upscalers))
    arguments = [
        _argument("", ""),
        _argument("Tile overlap", 64, minimum=0, maximum=256, step=16),
        _argument("Upscaler", LANCZOS, choices=upscalers),
        _argument("Scale Factor", 2.0, minimum=1.0, maximum=4.0, step=0.05),
    ]
    about = {"name": SD_UPSCALE, "is_alwayson": False, "is_img2img": True, "args": arguments}
    return jsonify([about])


def _argument(label: str, value: str | float, **limits: Any) -> dict[str, Any]:
    """A script's argument, with its default value."""
    unlimited = dict.fromkeys(("minimum", "maximum", "step", "choices"))
    return {"label": label, "value": value, **unlimited, **limits}


@blueprint.get("/cmd-flags")
def flags() -> Response:
    """A1111's command line, in which clients look for features."""
    return jsonify(api=True, listen=True, port=context().settings.port)


@blueprint.get("/memory")
def memory() -> Response:
    """Memory in use, which A1111 answers like this if it is not known; `/metrics` has it."""
    unknown = {"error": "see /metrics"}
    return jsonify(ram=unknown, cuda=unknown)


@blueprint.post("/interrogate")
def interrogate() -> Response:
    """Refuse to describe a picture: no model here does it."""
    raise ProblemError(
        501,
        "interrogate",
        "Not implemented",
        f"{request.path}: no model on this server describes pictures",
    )
