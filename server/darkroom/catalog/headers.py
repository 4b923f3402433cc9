"""What a safetensors file says of itself, without its tensors and without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from darkroom.errors import DarkroomError

MAX_HEADER_BYTES = 32 * 2**20  # the largest seen, with all captions of a training set, is 10 MiB
PICKLES = (b"PK\x03\x04", b"\x80\x02")  # how torch.save begins, since and before torch 1.6


class UnreadableFileError(DarkroomError, ValueError):
    """The file is no whole safetensors file; the message says why, without the file's name."""


@dataclass(frozen=True)
class Header:
    """What stands before the tensors.

    Attributes:
        shapes: of each tensor by its key.
        metadata: free text by key, as whoever wrote the file left it.
    """

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]


def parse(path: Path) -> Header:
    """The header, which the library checks against the file's length.

    Raises:
        SafetensorError: it is no safetensors file, or not the whole of one.
        OSError: it cannot be read.
    """
    # Of the frameworks it knows, numpy is the one that web can afford to import.
    with safe_open(path, framework="np") as opened:
        names = opened.keys()
        shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
        return Header(shapes, opened.metadata() or {})


def read(path: Path) -> Header:
    """Read the header, and see that the tensors it promises are there.

    Raises:
        UnreadableFileError: see there.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
        if start.startswith(PICKLES):
            raise UnreadableFileError("is a pickle under another name; convert it to safetensors")
        if len(start) < 8 or int.from_bytes(start, "little") > MAX_HEADER_BYTES:
            raise UnreadableFileError("is not a safetensors file")
        return parse(path)
    except SafetensorError as error:
        raise UnreadableFileError(f"is cut off or damaged ({error})") from None
    except OSError as error:
        raise UnreadableFileError(f"cannot be read ({error.strerror})") from None
