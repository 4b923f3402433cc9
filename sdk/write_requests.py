"""Writes what is made from the API document: `python sdk/write_requests.py [FOLDER]`.

`darkroom_client/core/requests.py`, the SDK's requests with their fields, and `openapi.json`, from
which `make generate` makes the mobile client's types. So a field is written once, in the server's
`requests.py`.
"""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from flask import Flask

from darkroom.api import openapi
from darkroom.api.app import add_routes

PACKAGE = Path(__file__).parent / "darkroom_client"
REQUESTS = Path("core/requests.py")
WIDTH = 98

Json = dict[str, Any]

KINDS = ("Txt2Img", "Img2Img", "Inpaint", "Edit", "Upscale")
BASE = "Txt2Img"
# Here pictures are more than text: see `PictureSource`.
PICTURES = {
    "image": "A path, bytes, a PIL image, a NumPy array, or an image of an earlier job.",
    "mask_image": "The same, as large as `image`. White is repainted.",
}
PICTURE = PICTURES["image"][0].lower() + PICTURES["image"][1:]
# Lists of them; what is said of each is added.
PICTURE_LISTS = {"references": f"Each is {PICTURE}"}
TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
# The SDK's names for the server's enumerations.
ALIASES = {
    "OutputFormat": "ImageFormat",
    "LatentResize": "LatentResize",
    "MaskedContent": "MaskedContent",
}
LISTS = {"Lora": "Sequence[Lora]"}

HEAD = '''\
"""The requests and their fields. A field that is None is not sent: the server's default applies.

Written by `sdk/write_requests.py` from the API document: change the server's `requests.py`, and
run `make generate`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from darkroom_client.core.lora import Lora
from darkroom_client.core.records import Task
from darkroom_client.core.sources import PictureSource

'''

REQUEST = '''

@dataclass(frozen=True)
class Request:
    """A request for a job."""

    task: ClassVar[Task]

    def given(self) -> dict[str, Any]:
        """The fields that are not None."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if value is not None}
'''


def document() -> Json:
    """The API document of the server beside this SDK."""
    app = Flask("darkroom.api", static_folder=None)
    add_routes(app)
    return openapi.write(app)


def requests(schemas: Json) -> str:
    """The module of requests, not yet formatted.

    Args:
        schemas: the document's components.
    """
    parts = [HEAD]
    for name, alias in ALIASES.items():
        choices = ", ".join(f'"{choice}"' for choice in schemas[name]["enum"])
        parts.append(f"{alias}: TypeAlias = Literal[{choices}]\n")
    parts.append(REQUEST)
    base = schemas[f"{BASE}Request"]["properties"]
    for kind in KINDS:
        schema = schemas[f"{kind}Request"]
        extends = kind != BASE and base.keys() <= schema["properties"].keys()
        fields = {
            name: field
            for name, field in schema["properties"].items()
            if not extends or name not in base
        }
        parts.append(_class(kind, BASE if extends else "Request", schema, fields))
    return "".join(parts)


def _class(kind: str, parent: str, schema: Json, fields: Json) -> str:
    required = schema["required"]
    lines = [f"    {line}".rstrip() for line in _docstring(schema["description"], fields)]
    lines += ["", f"    task: ClassVar[Task] = Task.{kind.upper()}", ""]
    for name, field in fields.items():
        value = "PictureSource" if name in PICTURES else _type(name, field)
        lines.append(f"    {name}: {value}" + ("" if name in required else " | None = None"))
        if kind == BASE and name == required[-1]:
            lines.append("    _: KW_ONLY")
    keywords = "" if kind == BASE else ", kw_only=True"
    head = f"\n\n@dataclass(frozen=True{keywords})\nclass {kind}({parent}):\n"
    return head + "\n".join(lines) + "\n"


def _docstring(description: str, fields: Json) -> list[str]:
    lines = [f'"""{description}', "", "Attributes:"]
    for name, field in fields.items():
        lines += textwrap.wrap(
            f"{name}: {_text(name, field)}",
            WIDTH - 4,
            initial_indent="    ",
            subsequent_indent="        ",
        )
    return [*lines, '"""']


def _text(name: str, field: Json) -> str:
    """The field's description, its range and its default."""
    if name in PICTURES:
        return PICTURES[name]
    value = _value(field)
    text = re.sub(r"`GET /(\w+)`", r"`Client.\1`", field.get("description", ""))
    if name in PICTURE_LISTS:
        return f"{text} {value['minItems']} to {value['maxItems']}. {PICTURE_LISTS[name]}"
    low = value.get("minimum")
    high = value.get("maximum")
    if "exclusiveMinimum" in value:
        text += f" Above {value['exclusiveMinimum']:g} to {high:g}."
    elif low is not None and high is not None:
        text += f" {low} to {high}."
    default = field.get("default")
    if default not in (None, "", [], ()) and not isinstance(default, bool):
        text += f" {default} by default."
    return text.strip()


def _value(field: Json) -> Json:
    """A field's schema without null."""
    (value,) = [part for part in field.get("anyOf", [field]) if part.get("type") != "null"]
    found: Json = value
    return found


def _type(name: str, field: Json) -> str:
    if name in PICTURE_LISTS:
        return "Sequence[PictureSource]"
    value = _value(field)
    kind = value.get("$ref", value.get("items", {}).get("$ref", "")).rpartition("/")[2]
    return ALIASES.get(kind) or LISTS.get(kind) or TYPES[value["type"]]


def write(target: Path, written: Json) -> None:
    """Write the module of requests into a copy of the package.

    Raises:
        subprocess.CalledProcessError: ruff, which formats it, does not understand it.
    """
    module = target / REQUESTS
    module.parent.mkdir(exist_ok=True)
    module.write_text(requests(written["components"]["schemas"]))
    config = ["--config", str(PACKAGE.parents[1] / "pyproject.toml")]
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", *config, module], check=True)


if __name__ == "__main__":
    made = document()
    write(PACKAGE, made)
    if len(sys.argv) > 1:
        (Path(sys.argv[1]) / "openapi.json").write_text(json.dumps(made))
