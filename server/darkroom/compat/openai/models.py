"""GET /v1/models: what may be asked for."""

from typing import Any

from flask import Blueprint, Response, jsonify

from darkroom.api.context import context
from darkroom.api.errors import ProblemError
from darkroom.catalog.models import ModelEntry, UnknownModelError

blueprint = Blueprint("openai_models", __name__, url_prefix="/v1/models")


@blueprint.get("")
def list_models() -> Response:
    """All models, the default one first: programs begin with the first."""
    entries = sorted(context().catalog.entries(), key=lambda entry: not entry.info.default)
    return jsonify(object="list", data=[_shown(entry) for entry in entries])


@blueprint.get("/<name>")
def show_model(name: str) -> Response:
    """One model."""
    try:
        return jsonify(_shown(context().catalog.find(name)))
    except UnknownModelError as error:
        raise ProblemError(404, "model", "No such model", str(error)) from None


def _shown(entry: ModelEntry) -> dict[str, Any]:
    try:
        created = int(entry.path.stat().st_mtime)
    except OSError:  # it was taken away just now
        created = 0
    return {
        "id": entry.info.name,
        "object": "model",
        "created": created,
        "owned_by": "darkroom",
    }
