"""From the bytes of a request, JSON or multipart, to fields and files by name."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from flask import request

from darkroom.api.context import context
from darkroom.api.errors import ProblemError, invalid, pointer
from darkroom.api.parsing.body import FORM, UNREADABLE, check_bytes, each_once
from darkroom.responses import FieldError

PICTURES = ("image", "mask")
LISTED = re.compile(r"\[\d*\]$")  # how forms name the parts of a list: image[], image[0]


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
        ProblemError: 400, 413 or 415.
    """
    if request.mimetype == FORM:
        fields, (files, spare) = _form_fields(), _form_files()
    else:
        fields, files, spare = _json_fields(), {}, ()
    try:
        digest = sha256(json.dumps([request.path, fields], sort_keys=True).encode())
    except RecursionError:
        raise invalid([FieldError(pointer="#", detail="is nested too deeply")], 400) from None
    for name in sorted(files):
        digest.update(name.encode() + sha256(files[name]).digest())
    return Sent(fields, files, spare, digest.hexdigest())


def _json_fields() -> dict[str, Any]:
    body = request.get_data()
    if body and not request.is_json:
        raise ProblemError(
            415,
            "content-type",
            "Unsupported content type",
            f"send application/json or {FORM}, not {request.mimetype or 'nothing'}",
        )
    try:
        fields = json.loads(body or b"{}", object_pairs_hook=each_once)
    except (ValueError, RecursionError):
        raise invalid([FieldError(pointer="#", detail="the body is not JSON")], 400) from None
    if not isinstance(fields, dict):
        raise invalid([FieldError(pointer="#", detail="the body is not a JSON object")], 400)
    return {name: value for name, value in fields.items() if value is not None}


def _form_fields() -> dict[str, Any]:
    fields: dict[str, Any] = {}
    errors = []
    for sent_name, values in request.form.lists():
        name = LISTED.sub("", sent_name or "")
        if not name or any(UNREADABLE in text for text in (name, *values)):
            errors.append(FieldError(pointer=pointer(name), detail="is not UTF-8, or has no name"))
        elif len(values) > 1 or name in fields:
            errors.append(FieldError(pointer=pointer(name), detail="is given more than once"))
        else:
            fields[name] = values[0]
    if errors:
        raise invalid(errors, 400)
    return fields


def _form_files() -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The first picture of each name, and the names of what else came."""
    limit = context().settings.web.max_upload_bytes
    files: dict[str, bytes] = {}
    spare = []
    for sent_name, part in request.files.items(multi=True):
        name = LISTED.sub("", sent_name)
        if name not in PICTURES or name in files:
            spare.append(sent_name)
            continue
        files[name] = part.stream.read(limit + 1)
        check_bytes(name, len(files[name]), limit)
    return files, tuple(spare)
