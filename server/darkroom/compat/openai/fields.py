"""From the body of a request, JSON or multipart, to fields and files by name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flask import request

from darkroom.api.context import context

PICTURES = ("image", "mask")


@dataclass(frozen=True)
class Sent:
    """What a request holds.

    Attributes:
        fields: by name; what is null is left out.
        files: the bytes of pictures by name.
        spare: names of files that nothing is done with.
        fingerprint: SHA-256 of all that was sent. The SDK sends a form again with another
            boundary, so it is of what the form says.
    """

    fields: Mapping[str, Any]
    files: Mapping[str, bytes]
    spare: tuple[str, ...]
    fingerprint: str


def read() -> Sent:
    """Read the current request.

    Raises:
        ProblemError: 400, 413, 415 or 422.
    """
    body = context().bodies.read(PICTURES, tolerant=True)
    given = {name: value for name, value in body.fields.items() if value is not None}
    body = replace(body, fields=given)
    return Sent(body.fields, body.files, body.spare, body.digest(request.path))
