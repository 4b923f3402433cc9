"""The examples of docs/api.md: run, compared with what stands there, and written anew.

    python -m tests.apidoc    writes the answers of a fresh server into the page

An example is a block of `sh` with one curl command, and the `http` block after it with the answer:
status, content type and body. Ids differ from run to run, so a command that names one from an
earlier answer gets the one that took its place.
"""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from tests import upscalers
from tests.serving import RunningServer, running
from tests.test_docs import shell

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/api.md"
EXAMPLE = re.compile(r"```sh\n(?P<command>.*?)```\n\n```http\n(?P<answer>.*?)```\n", re.DOTALL)
# Ids of jobs, pictures and tokens, and pairing codes.
NAME = re.compile(r"\b(?:[0-9a-f]{24}(?:-\d+)?|[0-9a-f]{12}|[0-9A-Z]{4}-[0-9A-Z]{4})\b")
SECRET = re.compile(r"\bdk_[\w-]+")
LINES = 12  # of an answer that is not JSON
LONG = 120  # characters of a string that is shown whole


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        head: status and content type, a line each.
        body: parsed where it is JSON, else the first lines.
    """

    head: tuple[str, ...]
    body: Any

    def __str__(self) -> str:
        body = self.body
        text = body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)
        return "\n".join([*self.head, "", text]).strip() + "\n"


def examples(page: str) -> Iterator[tuple[str, Answer]]:
    """Commands with the answers that the page gives."""
    for found in EXAMPLE.finditer(page):
        yield found["command"], parse(found["answer"])


def run(command: str, server: RunningServer, desk: Path) -> Answer:
    """What a server answers to a command."""
    address = server.url.removeprefix("http://")
    script = 'curl() { command curl -si --max-time 60 "$@"; }\n' + command.replace(
        "localhost:7860", address
    )
    done = shell(script, cwd=desk, capture_output=True)
    said = done.stdout.decode(errors="replace").replace(address, "localhost:7860")
    return parse(SECRET.sub("dk_…", said))


def parse(text: str) -> Answer:
    """An answer as it was sent, or as the page shows it."""
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    first, *headers = head.split("\n")
    kept = [line for line in headers if line.lower().startswith(("content-type", "location"))]
    kept = [line.split(": ")[0].lower() + ": " + line.split(": ")[1] for line in kept]
    try:
        return Answer((first, *kept), _short(json.loads(body)))
    except ValueError:
        lines = body.strip("\n").split("\n")
        return Answer((first, *kept), "\n".join(_cut(line) for line in lines[:LINES]))


def names(answer: Answer) -> list[str]:
    """The ids in an answer, in order."""
    return list(dict.fromkeys(NAME.findall(str(answer))))


def outline(answer: Answer) -> Any:
    """What must be the same in each run: status, content type, and which fields there are."""
    first, *headers = answer.head
    kind = [line for line in headers if line.startswith("content-type")]
    body = answer.body
    shape = body.partition(" ")[0] if isinstance(body, str) else _fields(body)
    return first.split(" ")[:2], kind, shape


def _fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _fields(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_fields(each) for each in value[:1]]
    return "…"


def _short(value: Any) -> Any:
    """The first of a list, the beginning of a string."""
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    if isinstance(value, list):
        few = value[:1] if value and isinstance(value[0], dict) else value[:4]
        return [_short(each) for each in few]
    return _cut(value) if isinstance(value, str) else value


def _cut(text: str) -> str:
    return text if len(text) <= LONG else text[:LONG] + "…"


def furnish(desk: Path, server: RunningServer) -> Path:
    """Make the files that the commands name, and an upscaler, of which this is the path."""
    upscaler = upscalers.save(server.data_dir / "upscalers", "sharp-x2")
    shutil.copy(ROOT / "tests/data/photo.jpg", desk / "photo.jpg")
    mask = Image.new("L", (451, 300), 0)
    ImageDraw.Draw(mask).ellipse((150, 75, 300, 225), fill=255)
    mask.save(desk / "mask.png")
    return upscaler


def write() -> None:
    """Put a fresh server's answers into the page."""
    page = PAGE.read_text()
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "data", DARKROOM_WORKER__NAME="box-0") as server,
    ):
        desk = Path(folder)
        furnish(desk, server)
        place: dict[str, str] = {}
        for found in list(EXAMPLE.finditer(page)):
            command = found["command"]
            for shown, real in place.items():
                command = command.replace(shown, real)
            answer = run(command, server, desk)
            place |= dict(zip(names(parse(found["answer"])), names(answer), strict=False))
            new = found[0].replace(found["answer"], str(answer))
            page = page.replace(found[0], new.replace(found["command"], command), 1)
    PAGE.write_text(page)


if __name__ == "__main__":
    sys.exit(write())
