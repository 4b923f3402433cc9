"""Reading what lies on disk: JSON and the headers of weights, and remembering what was found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from safetensors import SafetensorError

from darkroom.catalog import headers
from darkroom.catalog.headers import Header
from darkroom.errors import DarkroomError

Found = TypeVar("Found")

# How files begin that often lie under the name of weights. Looked at when a file is no
# safetensors only: those begin with a number, whose bytes may be any of these.
MASKS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights: run `git lfs pull`"),
    (b"PK\x03\x04", "is a pickled checkpoint under another name: loading it could run code"),
    (b"\x80\x02", "is a pickled checkpoint under another name: loading it could run code"),
    (b"<", "is a web page, not weights: the download was answered by an error or a login page"),
    (b"GGUF", "is a GGUF file under another name; only safetensors are read"),
)


class UnusableError(DarkroomError, ValueError):
    """Something cannot be used; says what it is and why, for the owner of the box."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UnusableError: the file is missing, unreadable, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnusableError(f"{_short(path)} is missing") from None
    except OSError as error:
        raise UnusableError(f"{_short(path)} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"{_short(path)} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UnusableError(f"{_short(path)} does not hold a JSON object")
    return value


def read_header(path: Path) -> Header:
    """Read a safetensors file's header, which the library checks against the file's length.

    Raises:
        UnusableError: it is no safetensors file, or not the whole of one.
    """
    try:
        header = headers.parse(path)
    except SafetensorError as error:
        reason = _mask(path) or f"is cut short or damaged ({error})"
        raise UnusableError(f"{path.name} {reason}") from None
    except OSError as error:
        raise UnusableError(f"{path.name} cannot be read: {error.strerror or error}") from None
    if not header.shapes:
        raise UnusableError(f"{path.name} holds no tensors")
    return header


def _mask(path: Path) -> str | None:
    """What a file is that is no safetensors, if its beginning tells."""
    with path.open("rb") as file:
        beginning = file.read(32)
    return next((reason for mask, reason in MASKS if beginning.startswith(mask)), None)


class Remembered(Generic[Found]):
    """What was found in a file, until it changes: models are looked up at every request.

    Args:
        look: finds it; may raise `UnusableError`, which is remembered too.
    """

    def __init__(self, look: Callable[[Path], Found]) -> None:
        self._look = look
        self._found: dict[Path, tuple[tuple[int, int], Found | UnusableError]] = {}

    def __call__(self, path: Path) -> Found:
        """Look, unless the file is as it was.

        Raises:
            UnusableError: from `look`, or the file is gone.
        """
        try:
            stat = path.stat()
        except OSError as error:
            raise UnusableError(f"{path.name} cannot be read: {error.strerror}") from None
        stamp = (stat.st_mtime_ns, stat.st_size)
        known = self._found.get(path)
        if known is None or known[0] != stamp:
            found: Found | UnusableError
            try:
                found = self._look(path)
            except UnusableError as error:
                found = error
            known = self._found[path] = (stamp, found)
        if isinstance(known[1], UnusableError):
            raise UnusableError(str(known[1]))  # a fresh one: raising adds to its traceback
        return known[1]


def _short(path: Path) -> str:
    """Enough of a path to find the file in a model's folder: `unet/config.json`."""
    return f"{path.parent.name}/{path.name}"
