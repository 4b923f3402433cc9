"""From the bytes of a request to fields, whatever content type they came as."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError

from darkroom.api.context import context
from darkroom.api.errors import field_errors, invalid
from darkroom.responses import FieldError

Fields = TypeVar("Fields", bound=BaseModel)


@dataclass(frozen=True)
class Body:
    """What was sent.

    Attributes:
        fields: by name; numbers are finite.
        digest: SHA-256 of the address and the fields, hexadecimal.
    """

    fields: Mapping[str, Any]
    digest: str

    def part(self, *which: object) -> str:
        """A fingerprint of one of the jobs that the request becomes."""
        return sha256(f"{self.digest} {which}".encode()).hexdigest()


def read() -> Body:
    """The current request's body.

    Raises:
        ProblemError: 422, as FastAPI answers what is no JSON object; 400, 413 or 415.
    """
    fields = context().bodies.read_any_json().fields
    try:
        text = json.dumps([request.path, fields], sort_keys=True, ensure_ascii=False).encode()
    except RecursionError:
        raise invalid([FieldError(pointer="#", detail="the body is nested too deeply")]) from None
    return Body(fields, sha256(text).hexdigest())


def parse(model: type[Fields], fields: Mapping[str, Any]) -> Fields:
    """Fields as a model, what is null or an empty string left out.

    Raises:
        ProblemError: 422.
    """
    given = {name: value for name, value in fields.items() if value is not None and value != ""}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid(field_errors(error, model.model_fields)) from None
