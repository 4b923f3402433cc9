"""What is known of a file of weights: from its metadata, other programs' files, and a picture.

The files beside it are A1111's and Forge's `NAME.json`, and those in which downloaders keep what
Civitai says (`NAME.civitai.info`, …). They are read as far as they are understood, and never make a
model unusable.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.catalog.listing import Listed
from darkroom.catalog.weight_files import SAFETENSORS, read_bytes, read_header

OURS = ".darkroom.json"  # the owner's notes, always
SHARED = ".json"  # the owner's notes, or another program's
# Of Civitai Helper, Stability Matrix, ComfyUI-Lora-Manager and SwarmUI.
THEIRS = (".civitai.info", ".cm-info.json", ".metadata.json", ".swarm.json")
PICTURES = tuple(
    f"{middle}{ending}"
    for middle in (".preview", "", ".thumb", ".swarmpreview")
    for ending in (".png", ".jpg", ".jpeg", ".webp")
)
THUMBNAIL = "modelspec.thumbnail"  # a data URI in a file's own metadata
ALL = (OURS, SHARED, *THEIRS, *PICTURES)
MAX_BYTES = 4 * 2**20  # of a file
MAX_PICTURE_BYTES = 32 * 2**20
MAX_TITLE, MAX_TEXT, MAX_WORDS = 200, 2000, 20  # characters, characters, trigger words

_TAG = re.compile(r"<[^<>]*>")

# Where each fact stands, in the order in which they are asked; `a.b` is b of the object in a.
TITLES = ("title", "modelspec.title", "model.name", "model_name", "ModelName", "civitai.model.name")
TEXTS = ("description", "modelspec.description", "ModelDescription", "modelDescription")
WORDS = (
    *("activation text", "trainedWords", "TrainedWords", "trained_words", "civitai.trainedWords"),
    *("modelspec.trigger_phrase", "trigger_words"),
)
LICENCES = ("modelspec.license", "license", "licence")


@dataclass(frozen=True)
class About:
    """Facts about a file.

    Attributes:
        picture: a file that shows what it draws; the file itself if its metadata holds one.
    """

    title: str = ""
    description: str = ""
    trigger_words: tuple[str, ...] = ()
    licence: str = ""
    picture: Path | None = None


def about(listed: Listed, metadata: Mapping[str, str]) -> About:
    """What is known of a file: what is beside it goes before its own metadata."""
    sources = [*_others(listed), metadata]
    picture = next(listed.beside(*PICTURES), None)
    if picture is None and metadata.get(THUMBNAIL, "").startswith("data:image/"):
        picture = listed.path
    return About(
        title=_first(_texts(sources, TITLES))[:MAX_TITLE],
        description=_first(_texts(sources, TEXTS))[:MAX_TEXT],
        trigger_words=_words(sources),
        licence=_first(_texts(sources, LICENCES))[:MAX_TITLE],
        picture=picture,
    )


def picture_of(path: Path) -> bytes:
    """The bytes of an `About`'s picture, which may be anything.

    Raises:
        OSError: it cannot be read.
        UnusableError: the file that should hold it is damaged.
    """
    if path.suffix.lower() != SAFETENSORS:
        return read_bytes(path, MAX_PICTURE_BYTES)
    _, _, text = read_header(path).metadata.get(THUMBNAIL, "").partition(";base64,")
    try:
        return base64.b64decode(text)
    except ValueError:
        return b""


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if it holds something else, or cannot be read."""
    try:
        found = json.loads(read_bytes(path, MAX_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _others(listed: Listed) -> Iterator[Mapping[str, Any]]:
    for path in listed.beside(SHARED, *THEIRS):
        found = read_object(path)
        if found is not None:
            yield found


def _values(sources: Iterable[Mapping[str, Any]], places: Iterable[str]) -> Iterator[Any]:
    """What is found in these places; in each source in their order."""
    wanted = tuple(places)
    for source in sources:
        for place in wanted:
            if place in source:
                yield source[place]
                continue
            inner: Any = source
            for name in place.split("."):
                inner = inner.get(name) if isinstance(inner, dict) else None
            if inner is not None:
                yield inner


def _texts(sources: Iterable[Mapping[str, Any]], places: Iterable[str]) -> Iterator[str]:
    for value in _values(sources, places):
        if isinstance(value, str):
            yield _plain(value[: 4 * MAX_TEXT])


def _first(texts: Iterable[str]) -> str:
    return next((text for text in texts if text), "")


def _plain(text: str) -> str:
    """Text without HTML's tags, on one line. Civitai's descriptions are HTML."""
    return " ".join(html.unescape(_TAG.sub(" ", text)).split())


def _words(sources: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Trigger words: a list, or one text."""
    for value in _values(sources, WORDS):
        parts = value if isinstance(value, list) else [value]
        words = [" ".join(part.split())[:MAX_TITLE] for part in parts if isinstance(part, str)]
        found = tuple(word.strip(" ,") for word in words if word.strip(" ,"))
        if found:
            return found[:MAX_WORDS]
    return ()
