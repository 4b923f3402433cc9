"""GET and POST /sdapi/v1/options: each client's own settings, where A1111 has one set for all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, jsonify

from darkroom.api.auth import access
from darkroom.api.context import Context, context
from darkroom.api.errors import ProblemError, invalid, pointer
from darkroom.catalog.models import ModelCatalog, ModelEntry, UnknownModelError
from darkroom.compat.ignored import Ignored
from darkroom.requests import MAX_CLIP_SKIP, OutputFormat
from darkroom.responses import FieldError

blueprint = Blueprint("a1111_options", __name__, url_prefix="/sdapi/v1")

MODEL = "sd_model_checkpoint"
CLIP_SKIP = "CLIP_stop_at_last_layers"
FORMAT = "samples_format"
KNOWN = (MODEL, CLIP_SKIP, FORMAT)
FORMATS = {
    "png": OutputFormat.PNG,
    "jpg": OutputFormat.JPEG,
    "jpeg": OutputFormat.JPEG,
    "webp": OutputFormat.WEBP,
}
# Options that clients read, and that no request changes.
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

Options = Mapping[str, Any]  # that a client has set


def client_options(here: Context) -> Options:
    """The options that the current client has set, by name."""
    return here.preferences.of(access.caller().client)


@blueprint.get("/options")
def show_options() -> Response:
    """Show the client's options."""
    here = context()
    options = client_options(here)
    return jsonify(
        {
            MODEL: current_model(here.catalog, options).info.name,
            CLIP_SKIP: options.get(CLIP_SKIP, 1),
            FORMAT: options.get(FORMAT, "png"),
            **FIXED,
        }
    )


@blueprint.post("/options")
def change_options() -> Response:
    """Change some of the client's options; those that do not exist here are named as ignored."""
    here = context()
    fields = here.bodies.read_any_json().fields
    ignored = Ignored()
    changes: dict[str, str | int | None] = {}
    if fields.get(MODEL):
        changes[MODEL] = find_model(here.catalog, str(fields[MODEL]), MODEL).info.name
    if CLIP_SKIP in fields:
        changes[CLIP_SKIP] = _clip_skip(fields[CLIP_SKIP], CLIP_SKIP)
    if FORMAT in fields:
        if str(fields[FORMAT]).lower() in FORMATS:
            changes[FORMAT] = str(fields[FORMAT]).lower()
        else:
            ignored.add(FORMAT)
    ignored.add(*(name for name in fields if _is_ignored(name, fields[name])))
    if changes:
        here.preferences.change(access.caller().client, changes)
    return ignored.sent_with(jsonify({}))


@dataclass(frozen=True)
class Overrides:
    """The options of one request: the model, layers to skip (from 0) and output format."""

    model: ModelEntry
    clip_skip: int
    output_format: OutputFormat


def override(
    catalog: ModelCatalog,
    options: Options,
    given: Mapping[str, Any],
    clip_skip: int | None,
    ignored: Ignored,
) -> Overrides:
    """The options of one request: its own, else the client's.

    Args:
        catalog: the models.
        options: the client's.
        given: the request's `override_settings`.
        clip_skip: the request's field of this name, another place for it; counted from 1.
        ignored: takes the names of options that do not exist here.

    Raises:
        ProblemError: 422.
    """
    path = "override_settings"
    layers = given.get(CLIP_SKIP)
    if layers is None:
        layers = clip_skip if clip_skip is not None else options.get(CLIP_SKIP, 1)
    wanted = str(given.get(FORMAT) or options.get(FORMAT, "png")).lower()
    if wanted not in FORMATS:
        ignored.add(f"{path}.{FORMAT}")
    ignored.add(*(f"{path}.{name}" for name, value in given.items() if _is_ignored(name, value)))
    skipped = _clip_skip(layers, path, CLIP_SKIP) - 1
    title = given.get(MODEL)
    model = (
        find_model(catalog, str(title), path, MODEL) if title else current_model(catalog, options)
    )
    return Overrides(model, skipped, FORMATS.get(wanted, OutputFormat.PNG))


def find_model(catalog: ModelCatalog, title: str, *field: str) -> ModelEntry:
    """The model of a checkpoint title: a model's name, with or without an extension and a hash.

    Args:
        catalog: the models.
        title: as sent; it may come from another server.
        field: path of the field, for the error.

    Raises:
        ProblemError: 422, there is no such model.
    """
    plain = title.strip()
    if plain.endswith("]") and " [" in plain:
        plain = plain[: plain.rindex(" [")]
    names = {entry.info.name.lower(): entry for entry in catalog.entries()}
    for wanted in (title, plain, plain.removesuffix(".safetensors").removesuffix(".ckpt")):
        if wanted.lower() in names:
            return names[wanted.lower()]
    try:
        return catalog.find(plain or "?")
    except UnknownModelError as error:
        raise invalid([FieldError(pointer=pointer(*field), detail=str(error))]) from None


def current_model(catalog: ModelCatalog, options: Options) -> ModelEntry:
    """The model that the client has set if it still exists, else the default one.

    Raises:
        ProblemError: 422, the default one does not exist either.
    """
    chosen = options.get(MODEL)
    for name in (str(chosen) if chosen else None, None):
        try:
            return catalog.find(name)
        except UnknownModelError as error:
            reason = str(error)
    raise invalid([FieldError(pointer=pointer(MODEL), detail=reason)])


def _is_ignored(name: str, value: Any) -> bool:
    """Whether an option does not exist here and asks for something else than what is fixed."""
    return name not in KNOWN and bool(value) and value not in (FIXED.get(name), "None", "Automatic")


def _clip_skip(value: Any, *field: str) -> int:
    """A1111's “Clip skip”, where 1 skips nothing; its clients also send 0 for that."""
    try:
        layers = int(value)
    except (TypeError, ValueError, OverflowError):
        raise _no_number(field) from None
    if not 0 <= layers <= MAX_CLIP_SKIP + 1:
        raise _no_number(field)
    return max(1, layers)


def _no_number(field: tuple[str, ...]) -> ProblemError:
    detail = f"must be a number from 1 to {MAX_CLIP_SKIP + 1}"
    return invalid([FieldError(pointer=pointer(*field), detail=detail)])
