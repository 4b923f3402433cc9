"""From an HTTP body, JSON or multipart, to validated fields and file parts."""

import json
from typing import Any

from flask import request
from pydantic import ValidationError
from werkzeug.datastructures import FileStorage

from darkroom.api.context import context
from darkroom.api.errors import ProblemError, field_errors, invalid, pointer
from darkroom.requests import ALL_REQUEST_TYPES, AnyRequest, Task
from darkroom.responses import FieldError

FILE_FIELDS = ("image", "mask_image")
FORM = "multipart/form-data"
UNREADABLE = "\N{REPLACEMENT CHARACTER}"  # what Werkzeug puts where bytes are not UTF-8


def parse(task: Task) -> tuple[dict[str, Any], dict[str, bytes], AnyRequest]:
    """Read the current request.

    Returns:
        The fields as sent, the file parts, and the validated request, in which a file part stands
        as a placeholder.

    Raises:
        ProblemError: 400, 413, 415 or 422.
    """
    cls = ALL_REQUEST_TYPES[task]
    if request.mimetype == FORM:
        fields, files = _parse_form()
        placeholders = dict.fromkeys(files, "file part")
        try:
            return fields, files, cls.model_validate({**fields, **placeholders})
        except ValidationError as error:
            raise invalid(field_errors(error, cls.model_fields)) from None
    body = request.get_data()
    if body and not request.is_json:
        hint = (
            "; with curl, add -H 'content-type: application/json'"
            if request.mimetype == "application/x-www-form-urlencoded"
            else ""
        )
        raise ProblemError(
            415,
            "content-type",
            "Unsupported content type",
            f"send application/json or {FORM}, not {request.mimetype or 'nothing'}{hint}",
        )
    body = body or b"{}"
    try:
        asked = cls.model_validate_json(body, strict=True)
    except ValidationError as error:
        malformed = any(item["type"] == "json_invalid" for item in error.errors())
        raise invalid(field_errors(error, cls.model_fields), 400 if malformed else 422) from None
    return json.loads(body, object_pairs_hook=each_once), {}, asked


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a name given twice parsers take the first or the last, and nobody knows which."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = ", ".join(name for name in fields if names.count(name) > 1)
        raise invalid([FieldError(pointer="#", detail=f"holds {twice} more than once")])
    return fields


def _twice(name: str) -> FieldError:
    return FieldError(pointer=pointer(name), detail="is given more than once")


def _parse_form() -> tuple[dict[str, Any], dict[str, bytes]]:
    fields: dict[str, Any] = {}
    errors = []
    for name, values in request.form.lists():
        if name is None or UNREADABLE in name:
            errors.append(FieldError(pointer="#", detail="a part has no name that can be read"))
            continue
        if len(values) > 1:
            errors.append(_twice(name))
        if UNREADABLE in values[0]:
            errors.append(FieldError(pointer=pointer(name), detail="is not UTF-8"))
        fields[name] = values[0]
    if "loras" in fields:
        try:
            fields["loras"] = json.loads(fields["loras"], object_pairs_hook=each_once)
        except (ValueError, RecursionError):
            errors.append(FieldError(pointer="#/loras", detail="is not JSON"))
    files: dict[str, bytes] = {}
    for name, part in request.files.items(multi=True):
        if name not in FILE_FIELDS:
            errors.append(FieldError(pointer=pointer(name), detail="takes no file"))
        elif name in files or name in fields:
            errors.append(_twice(name))
        else:
            files[name] = _read_part(name, part)
    if errors:
        raise invalid(errors)
    return fields, files


def _read_part(name: str, part: FileStorage) -> bytes:
    limit = context().settings.web.max_upload_bytes
    data = part.stream.read(limit + 1)
    check_bytes(name, len(data), limit)
    return data


def check_bytes(name: str, size: int, limit: int) -> None:
    """See whether a picture's bytes may be looked at.

    Raises:
        ProblemError: 413 or 422.
    """
    if size == 0:
        raise invalid([FieldError(pointer=pointer(name), detail="is empty")])
    if size > limit:
        detail = f"is larger than {limit} bytes"
        raise invalid([FieldError(pointer=pointer(name), detail=detail)], 413)
