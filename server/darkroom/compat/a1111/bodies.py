"""From the bytes of a request to fields, whatever content type they came as."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError

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
        ProblemError: 422, as FastAPI answers what is no JSON object; 413.
    """
    data = request.get_data()
    try:
        fields = json.loads(data or b"{}", parse_float=_number, parse_constant=_nothing)
        text = json.dumps([request.path, fields], sort_keys=True, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        # UnicodeError is one too: half a surrogate pair is no text
        raise _malformed(f"is not JSON: {type(error).__name__}") from None
    if not isinstance(fields, dict):
        raise _malformed("is not an object")
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


def _number(text: str) -> float | None:
    """JSON has no largest number; we have."""
    value = float(text)
    return value if math.isfinite(value) else None


def _nothing(_name: str) -> None:
    """Infinity and NaN, which are not JSON, though Python's clients send them."""


def _malformed(detail: str) -> Exception:
    return invalid([FieldError(pointer="#", detail=f"the body {detail}")])
