"""Arrays of pixels as PNG files, without the library that made them."""

import struct
import zlib
from typing import Any, Protocol, runtime_checkable

# Channels to PNG's colour type (PNG specification, third edition, section 11.2.1).
COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@runtime_checkable
class PixelArray(Protocol):
    """The part of `numpy.ndarray` that is needed here; NumPy itself is not."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def astype(self, dtype: str, /) -> Any: ...

    def tobytes(self) -> bytes: ...


def png(array: PixelArray) -> bytes:
    """A PNG file of an array.

    Args:
        array: (height, width) or (height, width, channels) with 1 to 4 channels: grey, grey and
            alpha, RGB, RGBA. Of uint8; or of bool, where True is white; or of floats from 0 to 1.

    Raises:
        TypeError: another shape or kind of numbers.
        ValueError: floats beyond 0 to 1.
    """
    shape = array.shape
    channels = shape[2] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in COLOURS or 0 in shape:
        hint = " (channels come last)" if len(shape) == 3 and shape[0] in COLOURS else ""
        raise TypeError(f"a picture is height × width × 1 to 4 channels, not {shape}{hint}")
    height, width = shape[:2]
    row_bytes = width * channels
    data = _levels(array).tobytes()
    rows = (data[at : at + row_bytes] for at in range(0, height * row_bytes, row_bytes))
    packed = zlib.compress(b"".join(b"\x00" + row for row in rows))  # 0: rows are as they are
    header = struct.pack(">IIBBBBB", width, height, 8, COLOURS[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def _levels(array: Any) -> Any:
    """The array in numbers from 0 to 255."""
    kind = str(array.dtype)
    if kind == "uint8":
        return array
    if kind == "bool":
        return array.astype("uint8") * 255
    if not kind.startswith("float"):
        raise TypeError(f"a picture's array is of uint8, bool or floats, not {kind}")
    if not (array.min() >= 0 and array.max() <= 1):  # nan is neither
        raise ValueError("a picture's floats are from 0 to 1")
    return (array.astype("float32") * 255).round().astype("uint8")


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum
