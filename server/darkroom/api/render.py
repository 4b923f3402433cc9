"""Models to responses."""

from flask import Response
from pydantic import BaseModel


def send_model(
    model: BaseModel, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A model as JSON."""
    return Response(model.model_dump_json(), status, headers or {}, content_type="application/json")
