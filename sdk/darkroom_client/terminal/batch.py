"""Files of many requests: JSON lines, or CSV with the fields' names in the first row."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from darkroom_client.core.records import Task
from darkroom_client.core.requests import Edit, Img2Img, Inpaint, Request, Txt2Img, Upscale
from darkroom_client.terminal.fields import Field, fields

TASKS: dict[str, type[Request]] = {
    kind.task.value: kind for kind in (Txt2Img, Img2Img, Inpaint, Edit, Upscale)
}


@dataclass(frozen=True)
class Asked:
    """A request of this command's.

    Attributes:
        name: by which its sender knows it: the prompt, or the line of a file.
    """

    request: Request
    name: str


def read(text: str) -> list[Asked]:
    """All requests of a file. It is JSON lines if it begins with a brace, else CSV.

    A row is a txt2img; with `image` it is an img2img, with `mask_image` an inpaint, with
    `references` an edit, and with `upscaler` or `scale` an upscale. In CSV, `;` stands between
    references. Empty cells, empty lines and null say nothing.

    Raises:
        ValueError: a line is wrong; the message names it and what is wrong with it.
    """
    text = text.removeprefix("\ufeff")
    rows = _json_rows(text) if text.lstrip().startswith("{") else _csv_rows(text)
    return [Asked(_checked(line, row, written), f"line {line}") for line, row, written in rows]


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any], bool]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except ValueError as error:
            raise ValueError(f"line {line} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {line} is not an object with fields")
        yield line, {name: value for name, value in row.items() if value is not None}, False


def _csv_rows(text: str) -> Iterator[tuple[int, dict[str, Any], bool]]:
    table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in table:
            if None in row:
                raise ValueError(f"line {table.line_num} has more cells than the first row")
            yield table.line_num, {name: cell for name, cell in row.items() if cell}, True
    except csv.Error as error:
        raise ValueError(f"line {table.line_num} is not CSV: {error}") from None


def _checked(line: int, row: dict[str, Any], written: bool) -> Request:
    try:
        return _request(row, written)
    except ValueError as error:
        raise ValueError(f"line {line}: {error}") from None


def _request(row: dict[str, Any], written: bool) -> Request:
    """One row as a request. `written` is whether its values are text."""
    named = row.pop("task", None)
    kind = TASKS.get(named or _guess(row))
    if kind is None:
        raise ValueError(f"task is one of {', '.join(TASKS)}, not {named!r}")
    known = fields(kind)
    unknown = ", ".join(str(name) for name in row if name not in known)
    if unknown:
        raise ValueError(f"there is no field {unknown}; there are {', '.join(known)}")
    missing = ", ".join(field.name for field in known.values() if _lacks(field, row))
    if missing:
        raise ValueError(f"{missing} is missing")
    read_one = Field.of_text if written else Field.of_json
    return kind(**{name: read_one(known[name], value) for name, value in row.items()})


def _guess(row: Mapping[str, Any]) -> Task:
    marks = {
        "upscaler": Task.UPSCALE,
        "scale": Task.UPSCALE,
        "mask_image": Task.INPAINT,
        "image": Task.IMG2IMG,
        "references": Task.EDIT,
    }
    return next((task for name, task in marks.items() if name in row), Task.TXT2IMG)


def _lacks(field: Field, row: dict[str, Any]) -> bool:
    return field.required and field.name not in row
