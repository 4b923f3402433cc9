"""GET and POST /sdapi/v1/options: each caller's own settings, where A1111 has one for all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, jsonify

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import invalid, pointer
from darkroom.compat.a1111 import bodies, checkpoints
from darkroom.compat.a1111.checkpoints import SETTING
from darkroom.compat.ignored import Ignored
from darkroom.requests import MAX_CLIP_SKIP, OutputFormat
from darkroom.responses import FieldError

blueprint = Blueprint("a1111_options", __name__, url_prefix="/sdapi/v1")

CLIP_SKIP = "CLIP_stop_at_last_layers"
FORMAT = "samples_format"
FORMATS = {
    "png": OutputFormat.PNG,
    "jpg": OutputFormat.JPEG,
    "jpeg": OutputFormat.JPEG,
    "webp": OutputFormat.WEBP,
}
# What clients look for, and what is so here whatever they say.
FIXED: dict[str, Any] = {
    "sd_checkpoint_hash": "",
    "sd_vae": "Automatic",
    "sd_lora": "None",
    "sd_hypernetwork": "None",
    "show_progress_type": "Approx NN",
    "live_previews_enable": True,
    "live_previews_image_format": "png",
    "save_images_add_number": True,
    "samples_save": True,
    "enable_pnginfo": True,
    "return_grid": False,
    "face_restoration": False,
    "eta_noise_seed_delta": 0,
}


@dataclass(frozen=True)
class Overrides:
    """Settings that a request is made with.

    Attributes:
        model: title of the model; None is the caller's.
        clip_skip: layers left out, as we count: from 0.
        output_format: of the pictures.
    """

    model: str | None
    clip_skip: int
    output_format: OutputFormat


@blueprint.get("/options")
def show_options() -> Response:
    """The caller's settings."""
    chosen = context().preferences.of(access.caller().client)
    return jsonify(
        {
            SETTING: checkpoints.current().info.name,
            CLIP_SKIP: chosen.get(CLIP_SKIP, 1),
            FORMAT: chosen.get(FORMAT, "png"),
            **FIXED,
        }
    )


@blueprint.post("/options")
def change_options() -> Response:
    """Set one of them, or send them all back; what is not known here is named and left."""
    fields = bodies.read().fields
    ignored = Ignored()
    changes: dict[str, str | int | None] = {}
    if fields.get(SETTING):
        changes[SETTING] = checkpoints.find(str(fields[SETTING]), SETTING).info.name
    if CLIP_SKIP in fields:
        changes[CLIP_SKIP] = _layers(fields[CLIP_SKIP], CLIP_SKIP)
    if FORMAT in fields:
        if str(fields[FORMAT]).lower() in FORMATS:
            changes[FORMAT] = str(fields[FORMAT]).lower()
        else:
            ignored.add(FORMAT)
    known = {SETTING, CLIP_SKIP, FORMAT}
    ignored.add(*(name for name in fields if name not in known and _differs(name, fields[name])))
    if changes:
        context().preferences.change(access.caller().client, changes)
    answer = jsonify({})
    answer.headers.update(ignored.headers)
    return answer


def overrides(given: Mapping[str, Any], clip_skip: int | None, ignored: Ignored) -> Overrides:
    """What a request is made with: its own settings over the caller's.

    Args:
        given: `override_settings`.
        clip_skip: another place where clients put it; counted from 1.
        ignored: takes the names of settings that are not known here.

    Raises:
        ProblemError: 422.
    """
    chosen = {**context().preferences.of(access.caller().client)}
    path = "override_settings"
    model = given.get(SETTING)
    layers = given.get(CLIP_SKIP)
    if layers is None:
        layers = clip_skip if clip_skip is not None else chosen.get(CLIP_SKIP, 1)
    wanted = str(given.get(FORMAT) or chosen.get(FORMAT, "png")).lower()
    if wanted not in FORMATS:
        ignored.add(f"{path}.{FORMAT}")
    for name, value in given.items():
        if name not in (SETTING, CLIP_SKIP, FORMAT) and _differs(name, value):
            ignored.add(f"{path}.{name}")
    return Overrides(
        str(model) if model else None,
        _layers(layers, path, CLIP_SKIP) - 1,
        FORMATS.get(wanted, OutputFormat.PNG),
    )


def _differs(name: str, value: Any) -> bool:
    """Whether a setting asks for anything else than what is so already."""
    return bool(value) and value not in (FIXED.get(name), "None", "Automatic")


def _layers(value: Any, *field: str) -> int:
    """A1111's “Clip skip”, where 1 leaves out nothing; 0 means the same to its clients."""
    try:
        layers = int(value)
    except (TypeError, ValueError, OverflowError):
        raise _no_number(field) from None
    if not 0 <= layers <= MAX_CLIP_SKIP + 1:
        raise _no_number(field)
    return max(1, layers)


def _no_number(field: tuple[str, ...]) -> Exception:
    detail = f"must be a number from 1 to {MAX_CLIP_SKIP + 1}"
    return invalid([FieldError(pointer=pointer(*field), detail=detail)])
