"""From a small JSON body to a model."""

import json
from typing import TypeVar

from flask import request
from pydantic import BaseModel, ValidationError

from darkroom.api.errors import ProblemError, field_errors, invalid
from darkroom.api.parsing.body import each_once

MAX_BYTES = 16_384

Body = TypeVar("Body", bound=BaseModel)


def read_json(model: type[Body]) -> Body:
    """The current request's body.

    Raises:
        ProblemError: 400, 413, 415 or 422.
    """
    request.max_content_length = MAX_BYTES
    body = request.get_data()
    if body and not request.is_json:
        raise ProblemError(
            415,
            "content-type",
            "Unsupported content type",
            f"send application/json, not {request.mimetype or 'nothing'}",
        )
    try:
        found = model.model_validate_json(body, strict=True)
    except ValidationError as error:
        malformed = any(item["type"] == "json_invalid" for item in error.errors())
        raise invalid(field_errors(error, model.model_fields), 400 if malformed else 422) from None
    json.loads(body, object_pairs_hook=each_once)
    return found
