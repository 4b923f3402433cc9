"""A request's fields as options and as columns, read off the request's type."""

import re
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from dataclasses import fields as fields_of
from types import NoneType
from typing import Any, Literal

from darkroom_client.core.call import PICTURE_LISTS, PICTURES
from darkroom_client.core.lora import Lora
from darkroom_client.core.requests import Request

TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Field:
    """One field of a request.

    Attributes:
        kind: int, float, bool or str; Lora of a list of them; bytes of a picture; list of a list
            of pictures.
        choices: what it may be, or nothing where that is open.
        text: what it means.
    """

    name: str
    kind: type
    choices: tuple[str, ...]
    required: bool
    text: str

    def of_text(self, value: str) -> Any:
        """A value as written in a table or on a command line.

        Raises:
            ValueError: that is no such value.
        """
        if self.kind is Lora:
            return [lora(word) for word in value.split()]
        if self.kind is list:
            return [word.strip() for word in value.split(";")]
        if self.kind is bool:
            if value.lower() not in TRUTHS:
                raise ValueError(f"{self.name} is true or false, not {value!r}")
            return TRUTHS[value.lower()]
        if self.kind in (int, float):
            try:
                return self.kind(value)
            except ValueError:
                what = "a whole number" if self.kind is int else "a number"
                raise ValueError(f"{self.name} is {what}, not {value!r}") from None
        return self.of_json(value)

    def of_json(self, value: Any) -> Any:
        """A value as JSON has it.

        Raises:
            ValueError: that is no such value.
        """
        if self.kind is Lora and isinstance(value, list):
            try:
                return [Lora(**item) for item in value]
            except TypeError:
                raise ValueError(f"{self.name} is a list of {{name, scale}}") from None
        allowed = {float: (int, float), bytes: (str,), Lora: ()}.get(self.kind, (self.kind,))
        if not isinstance(value, allowed) or (isinstance(value, bool) and self.kind is not bool):
            raise ValueError(f"{self.name} cannot be {value!r}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise ValueError(f"{self.name} is a list of pictures")
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name} is one of {', '.join(self.choices)}, not {value!r}")
        return value


def lora(text: str) -> Lora:
    """A LoRA written as NAME or NAME:SCALE."""
    name, _, scale = text.rpartition(":")
    try:
        return Lora(name, float(scale)) if name else Lora(text)
    except ValueError:
        return Lora(text)


def fields(kind: type[Request]) -> Mapping[str, Field]:
    """The fields of a request's type by name, in its order."""
    hints, texts = typing.get_type_hints(kind), _texts(kind)
    found = {}
    for field in fields_of(kind):
        hint = next(iter(_without_none(hints[field.name])))
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        value: type = str if choices else hint
        if field.name in PICTURES:
            value = bytes
        elif field.name in PICTURE_LISTS:
            value = list
        elif field.name == "loras":
            value = Lora
        required = field.default is MISSING
        found[field.name] = Field(field.name, value, choices, required, texts.get(field.name, ""))
    return found


def _without_none(hint: Any) -> list[Any]:
    if typing.get_origin(hint) is Literal or not typing.get_args(hint):
        return [hint]
    return [part for part in typing.get_args(hint) if part is not NoneType]


def _texts(kind: type[Request]) -> Mapping[str, str]:
    """What the docstrings of a type and of those that it extends say of each field."""
    found: dict[str, str] = {}
    for described in reversed(kind.__mro__[:-1]):
        attributes = (described.__doc__ or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", attributes, re.MULTILINE):
            found[name] = " ".join(text.split())
    return found
