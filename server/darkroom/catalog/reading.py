"""Reads JSON files and the headers of safetensors files, without torch, and caches the results."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from safetensors import SafetensorError, safe_open

from darkroom.errors import DarkroomError

Found = TypeVar("Found")

MAX_HEADER_BYTES = 32 * 2**20  # the largest seen, with all captions of a training set, is 10 MiB
PICKLES = (b"PK\x03\x04", b"\x80\x02")  # the first bytes of torch.save, since and before 1.6

# First bytes of other files that are often named like weights. Compared only if a file is not
# safetensors: those begin with a number, whose bytes may be any of these.
MASKS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights: run `git lfs pull`"),
    (b"PK\x03\x04", "is a pickled checkpoint under another name: loading it could run code"),
    (b"\x80\x02", "is a pickled checkpoint under another name: loading it could run code"),
    (b"<", "is a web page, not weights: the download was answered by an error or a login page"),
    (b"GGUF", "is a GGUF file under another name; only safetensors are read"),
)


class UnusableError(DarkroomError, ValueError):
    """A file or model cannot be used. The message names it and says why, for the owner."""


class UnreadableFileError(DarkroomError, ValueError):
    """An add-on's file cannot be used. The message says why, without the file's name."""


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file.

    Attributes:
        shapes: of each tensor by its key.
        metadata: free text by key.
    """

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]


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
    """The header of a model's safetensors file, checked against the file's length.

    Raises:
        UnusableError: it is not a safetensors file, or incomplete.
    """
    try:
        header = _parse(path)
    except SafetensorError as error:
        reason = _mask(path) or f"is cut short or damaged ({error})"
        raise UnusableError(f"{path.name} {reason}") from None
    except OSError as error:
        raise UnusableError(f"{path.name} cannot be read: {error.strerror or error}") from None
    if not header.shapes:
        raise UnusableError(f"{path.name} holds no tensors")
    return header


def read_addon_header(path: Path) -> Header:
    """The header of an add-on's safetensors file, checked against the file's length.

    Raises:
        UnreadableFileError: it is not a safetensors file, or incomplete.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
        if start.startswith(PICKLES):
            raise UnreadableFileError("is a pickle under another name; convert it to safetensors")
        if len(start) < 8 or int.from_bytes(start, "little") > MAX_HEADER_BYTES:
            raise UnreadableFileError("is not a safetensors file")
        return _parse(path)
    except SafetensorError as error:
        raise UnreadableFileError(f"is cut off or damaged ({error})") from None
    except OSError as error:
        raise UnreadableFileError(f"cannot be read ({error.strerror})") from None


def _parse(path: Path) -> Header:
    # Of the frameworks that the library knows, numpy alone is light enough for the web process.
    with safe_open(path, framework="np") as opened:
        names = opened.keys()
        shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
        return Header(shapes, opened.metadata() or {})


def _mask(path: Path) -> str | None:
    """What a file that is not safetensors is, as far as its first bytes say."""
    with path.open("rb") as file:
        beginning = file.read(32)
    return next((reason for mask, reason in MASKS if beginning.startswith(mask)), None)


class Remembered(Generic[Found]):
    """Caches a function of a file until the file changes: models are looked up at every request.

    Args:
        look: the function. An `UnusableError` that it raises is cached too.
    """

    def __init__(self, look: Callable[[Path], Found]) -> None:
        self._look = look
        self._found: dict[Path, tuple[tuple[int, int], Found | UnusableError]] = {}

    def __call__(self, path: Path) -> Found:
        """The result for a file, from the cache if its time and size are unchanged.

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
