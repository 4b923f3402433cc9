"""What there is: models, samplers, LoRAs, and the empty lists that clients look for."""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from darkroom.api.context import context
from darkroom.api.errors import ProblemError
from darkroom.compat.a1111 import samplers, upscalers
from darkroom.compat.a1111.scripts import SD_UPSCALE

blueprint = Blueprint("a1111_listings", __name__, url_prefix="/sdapi/v1")

# Asked for at the start by clients that give up on a 404. There are none of these here.
EMPTY = (
    *("sd-vae", "sd-modules", "hypernetworks", "face-restorers", "realesrgan-models"),
    *("prompt-styles", "extensions"),
)
# Everything is read afresh whenever it is asked for, and the worker loads what it needs.
NOTHING_TO_DO = (
    *("refresh-checkpoints", "refresh-loras", "refresh-vae", "refresh-embeddings"),
    *("unload-checkpoint", "reload-checkpoint"),
)


def _empty() -> Response:
    return jsonify([])


def _done() -> Response:
    return jsonify({})


for _name in EMPTY:
    blueprint.add_url_rule(f"/{_name}", _name, _empty, methods=["GET"])
for _name in NOTHING_TO_DO:
    blueprint.add_url_rule(f"/{_name}", _name, _done, methods=["POST"])


@blueprint.get("/sd-models")
def models() -> Response:
    """The models. No hash is made: it would be of gigabytes."""
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
    """The schedulers, by A1111's names for them."""
    return jsonify(samplers.sampler_list())


@blueprint.get("/schedulers")
def list_schedules() -> Response:
    """The ways to space noise levels, which A1111 calls schedule types."""
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
            for entry in context().adapters.loras()
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
        for entry in context().adapters.embeddings()
    }
    return jsonify(loaded=loaded, skipped={})


@blueprint.get("/upscalers")
def list_upscalers() -> Response:
    """What makes a picture larger without drawing anything: filters, then networks."""
    scales = dict.fromkeys(upscalers.BUILT_IN, upscalers.BUILT_IN_SCALE)
    scales |= {network.name: network.scale for network in upscalers.networks()}
    return jsonify(
        [
            {
                "name": name,
                "model_name": None if name in upscalers.BUILT_IN else name,
                "model_path": None,
                "model_url": None,
                "scale": float(scale),
            }
            for name, scale in scales.items()
        ]
    )


@blueprint.get("/latent-upscale-modes")
def latent_upscale_modes() -> Response:
    """What hires fix may be asked for beside the upscalers; see `upscalers`."""
    return jsonify([{"name": name} for name in upscalers.LATENT])


@blueprint.get("/scripts")
def scripts() -> Response:
    """The scripts that a request may name."""
    return jsonify(txt2img=[], img2img=[SD_UPSCALE])


@blueprint.get("/script-info")
def script_info() -> Response:
    """What the scripts take."""
    arguments: list[dict[str, Any]] = [
        {"label": "", "value": "", "minimum": None, "maximum": None, "step": None, "choices": None},
        {
            "label": "Tile overlap",
            "value": 64,
            "minimum": 0,
            "maximum": 256,
            "step": 16,
            "choices": None,
        },
        {
            "label": "Upscaler",
            "value": upscalers.LANCZOS,
            "minimum": None,
            "maximum": None,
            "step": None,
            "choices": list(upscalers.names()),
        },
        {
            "label": "Scale Factor",
            "value": 2.0,
            "minimum": 1.0,
            "maximum": 4.0,
            "step": 0.05,
            "choices": None,
        },
    ]
    about = {"name": SD_UPSCALE, "is_alwayson": False, "is_img2img": True, "args": arguments}
    return jsonify([about])


@blueprint.get("/cmd-flags")
def flags() -> Response:
    """How A1111 was started, which clients read to find out what there is."""
    return jsonify(api=True, listen=True, port=context().settings.port)


@blueprint.get("/memory")
def memory() -> Response:
    """A1111's own answer where it cannot tell: the worker has the GPU; see `/metrics`."""
    unknown = {"error": "see /metrics"}
    return jsonify(ram=unknown, cuda=unknown)


@blueprint.post("/interrogate")
def interrogate() -> Response:
    """Describing a picture is not done here."""
    raise ProblemError(
        501,
        "interrogate",
        "Not implemented",
        f"{request.path}: no model on this server describes pictures",
    )
