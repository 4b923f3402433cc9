"""The mobile client's types and translations are those of the API."""

import ast
import json
import re
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic_core import core_schema

import darkroom
from darkroom.api.checks import LACKS
from tests.serving import RunningServer

SERVER = Path(darkroom.__file__).parent
CLIENT = Path(__file__).parents[2] / "mobile_client"
TYPES = CLIENT / "src/lib/transport/schema.d.ts"
TRANSLATIONS = CLIENT / "src/strings/vi.ts"


def test_the_clients_types_are_those_of_the_api(server: RunningServer, tmp_path: Path) -> None:
    document, made = tmp_path / "openapi.json", tmp_path / "schema.d.ts"
    document.write_bytes(server.http.get("/openapi.json").content)

    npm = [sys.executable, CLIENT / "build_client.py", "exec", "--", "openapi-typescript"]
    subprocess.run([*npm, document, "--output", made], check=True)

    assert made.read_text() == TYPES.read_text(), "the API has changed; run: make generate"


def test_every_sentence_with_a_code_is_translated() -> None:
    ours = dict(coded_sentences()) | {f"no_{name}": {"model"} for name in LACKS}
    pydantics = set(get_args(core_schema.ErrorType))

    translated = translations()

    assert ours.keys() <= translated.keys()
    assert translated.keys() <= ours.keys() | pydantics
    for code, values in ours.items():
        names = {name for _, name, _, _ in string.Formatter().parse(translated[code]) if name}
        assert names <= values, code


def test_the_note_of_the_demo_model_is_translated() -> None:
    note = json.loads((SERVER / "models/tintype/darkroom.json").read_text())["note"]

    (known,) = re.findall(r'"create.demo": "(.*)",', (CLIENT / "src/strings/en.ts").read_text())
    assert known == note


def coded_sentences() -> Iterator[tuple[str, set[str]]]:
    """The code and the names of the values of every `message(…)` and `Message(…)` of the server."""
    for path in SERVER.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            match call.func.id, call.args:
                case "message", [ast.Constant(value=code), *_]:
                    yield code, {name.arg for name in call.keywords if name.arg}
                case "Message", [_, ast.Constant(value=code)]:
                    yield code, set()
                case "Message", [_, ast.Constant(value=code), ast.Dict(keys=keys)]:
                    yield code, {key.value for key in keys if isinstance(key, ast.Constant)}


def translations() -> dict[str, str]:
    """The sentences of the server in `vi.ts`, by code."""
    _, _, server = TRANSLATIONS.read_text().partition("export const server")
    return dict(re.findall(r'^  (\w+):\s+"(.*)",$', server, re.MULTILINE))
