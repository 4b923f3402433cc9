"""GGUF files, whose headers are read without torch and without the library for them.

That library reads whatever a header announces; here everything is bounded first. The format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from darkroom.catalog.weight_files import (
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    Header,
    UnusableError,
    open_file,
)

GGUF = ".gguf"
MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 1024
MAX_TEXTS = 1_000_000  # in lists: the vocabularies of language models
ALIGNMENT = 32  # unless the metadata says otherwise

# Type of metadata → how struct reads it. 8 is text and 9 is a list.
SCALARS: Mapping[int, str] = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
TEXT, LIST = 8, 9

# Type of a tensor → its name, numbers a block, bytes a block: those that diffusers reads.
TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}


class _Reader:
    """Reads little-endian values from the beginning of a file, up to a limit."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._texts = 0
        self.position = 0

    def take(self, size: int) -> bytes:
        self.position += size
        if self.position > MAX_HEADER_BYTES:
            raise ValueError(f"its header has more than {MAX_HEADER_BYTES} bytes")
        found = self._file.read(size)
        if len(found) < size:
            raise ValueError("its header ends too early")
        return found

    def number(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0]

    def text(self, most: int = MAX_HEADER_BYTES) -> str:
        size = self.number("Q")
        if size > most:
            raise ValueError(f"a text in its header has {size} bytes")
        return self.take(size).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """A value of the metadata. Of lists, which are vocabularies, nothing is kept."""
        if kind == TEXT:
            return self.text()
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind != LIST:
            raise ValueError(f"its metadata has a value of the unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner in SCALARS:
            size = struct.calcsize("<" + SCALARS[inner]) * count
            self.take(min(size, MAX_HEADER_BYTES + 1))
        elif inner == TEXT:
            self._texts += count
            if self._texts > MAX_TEXTS:
                raise ValueError(f"its metadata has lists of {count} texts")
            for _ in range(count):
                self.text()
        else:
            raise ValueError("its metadata has lists in lists")
        return None


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file: names, shapes as in PyTorch, and types of its tensors.

    Raises:
        UnusableError: it is damaged or no GGUF, or has tensors of a type that is not read.
    """
    try:
        with open_file(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            return _read(_Reader(file), size)
    except OSError as error:
        raise UnusableError(f"{path.name} cannot be read: {error.strerror or error}") from None
    except (ValueError, struct.error) as error:
        reason = f"is a GGUF file that is cut short or damaged ({error})"
        raise UnusableError(f"{path.name} {reason}") from None


def _read(reader: _Reader, file_size: int) -> Header:
    if reader.take(4) != MAGIC:
        raise ValueError("it does not begin as a GGUF file does")
    version = reader.number("I")
    if version not in VERSIONS:
        raise ValueError(f"its version is {version}")
    tensors, entries = reader.number("Q"), reader.number("Q")
    if tensors > MAX_TENSORS or entries > MAX_TENSORS:
        raise ValueError(f"its header lists {tensors} tensors and {entries} entries")
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        key = reader.text(MAX_NAME_BYTES)
        metadata[key] = reader.value(reader.number("I"))
    found = [_tensor(reader) for _ in range(tensors)]
    if not found:
        raise ValueError("it holds no tensors")
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**20:
        raise ValueError("its alignment makes no sense")
    start = math.ceil(reader.position / alignment) * alignment
    for name, _, _, offset, size in found:
        if start + offset + size > file_size:
            raise ValueError(f"{name} goes beyond its end")
    return Header(
        shapes={name: shape for name, shape, *_ in found},
        dtypes={name: dtype for name, _, dtype, *_ in found},
        metadata={key: value for key, value in metadata.items() if isinstance(value, str)},
    )


def _tensor(reader: _Reader) -> tuple[str, tuple[int, ...], str, int, int]:
    """Name, shape, type, offset and bytes of the next tensor."""
    name = reader.text(MAX_NAME_BYTES)
    dimensions = reader.number("I")
    if dimensions > MAX_DIMENSIONS:
        raise ValueError(f"{name} has {dimensions} dimensions")
    shape = tuple(reader.number("Q") for _ in range(dimensions))[::-1]
    kind, offset = reader.number("I"), reader.number("Q")
    if kind not in TYPES:
        raise ValueError(f"{name} is of the type {kind}, which is not read")
    dtype, numbers, size = TYPES[kind]
    count = math.prod(shape)
    if shape and shape[-1] % numbers:
        raise ValueError(f"{name} has rows of {shape[-1]} numbers, which is no multiple")
    return name, shape, dtype, offset, count // numbers * size
