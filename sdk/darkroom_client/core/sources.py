"""Pictures that go into a request, in every form that callers have them."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, TypeAlias, runtime_checkable

from darkroom_client.core.arrays import PixelArray, png

REFERENCE = "image:"

# What PNG can hold of Pillow's modes; others are converted first.
PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"})


@runtime_checkable
class StoredPicture(Protocol):
    """A picture that the server has already, as a job's `images` are."""

    @property
    def reference(self) -> str:
        """`image:<id>`."""


@runtime_checkable
class PillowImage(Protocol):
    """The part of `PIL.Image.Image` that is needed here; Pillow itself is not."""

    @property
    def mode(self) -> str: ...

    def convert(self, mode: str, /) -> Any: ...

    def save(self, fp: IO[bytes], kind: str, /) -> None: ...


PictureSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | PillowImage
    | PixelArray
    | StoredPicture
)
"""A path, bytes, a file open for reading bytes, a Pillow image, a NumPy array (height × width ×
channels), or a picture that the server has (`image:<id>`, or an `Image` of a finished job)."""


def read(source: PictureSource) -> str | bytes:
    """A picture as it is sent: `image:<id>`, or a file's bytes.

    A file object is read from where it stands, and stays open.

    Raises:
        OSError: the file cannot be read.
        TypeError: this is no picture.
        ValueError: an array's floats are not from 0 to 1.
    """
    match source:
        case str() if source.startswith(REFERENCE):
            return source
        case str() | os.PathLike():
            return Path(source).read_bytes()
        case bytes() | bytearray() | memoryview():
            return bytes(source)
        case StoredPicture():
            return source.reference
        case PillowImage():
            return _png(source)
        case PixelArray():
            return png(source)
        case _ if hasattr(source, "read"):
            data = source.read()
            if isinstance(data, bytes):
                return data
            raise TypeError("the picture's file is open as text; open it with mode 'rb'")
    raise TypeError(f"a picture is a path, bytes, file or image, not {type(source).__name__}")


def read_all(name: str, sources: Sequence[PictureSource]) -> list[str | bytes]:
    """The pictures of the field of this name, as they are sent; raises as `read`.

    Raises:
        TypeError: it is one picture, or no list of them.
    """
    if isinstance(sources, str | bytes | bytearray | memoryview) or not isinstance(
        sources, Sequence
    ):
        raise TypeError(f"{name} is a list of pictures, not {type(sources).__name__}")
    return [read(source) for source in sources]


def _png(picture: PillowImage) -> bytes:
    if picture.mode not in PNG_MODES:
        picture = picture.convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
