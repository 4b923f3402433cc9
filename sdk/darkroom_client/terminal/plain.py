"""Other people's words on this terminal, and records as JSON."""

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any


def plain(text: str) -> str:
    """Text without anything that a terminal would obey: prompts and names may be hostile."""
    kept = (char if char.isprintable() or char == "\n" else "\ufffd" for char in text)
    return "".join(kept)


def one_line(text: str, width: int) -> str:
    """The beginning of a text, on one line of at most `width` characters."""
    line = " ".join(plain(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def jsonable(value: Any) -> Any:
    """A record as JSON has it: times in RFC 3339."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: jsonable(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {name: jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
