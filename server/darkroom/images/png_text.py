"""Text in PNG files, read without decoding a pixel (PNG specification, third edition, 11.3.3).

Strangers' files: every length is checked against what is there, and what is compressed is
unpacked to a limit and no further.
"""

import struct
import zlib

from darkroom.errors import DarkroomError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEAD = struct.Struct(">I4s")
CHECK_BYTES = 4  # the chunk's CRC; a wrong one does no harm to text
MAX_CHUNKS = 10_000
MAX_TEXTS = 64
MAX_TEXT_BYTES = 2**20  # of one text, unpacked, and of all of them together
MAX_KEY_BYTES = 79


class NotPngError(DarkroomError, ValueError):
    """The bytes are no PNG file."""


def read(data: bytes) -> dict[str, str]:
    """The texts of a file by keyword; the first of each. What is broken or too long is passed over.

    Raises:
        NotPngError: it is another kind of file.
    """
    if not data.startswith(SIGNATURE):
        raise NotPngError("it is no PNG file")
    found: dict[str, str] = {}
    left = MAX_TEXT_BYTES
    tried = 0
    position = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if position + HEAD.size > len(data) or tried >= MAX_TEXTS or left <= 0:
            break
        length, kind = HEAD.unpack_from(data, position)
        start = position + HEAD.size
        position = start + length + CHECK_BYTES
        if kind == b"IEND" or position > len(data):
            break
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            tried += 1  # the broken ones too: unpacking takes time before it fails
            text = _text(kind, data[start : start + length], left)
            if text is not None and text[0] not in found:
                found[text[0]] = text[1]
                left -= len(text[1])
    return found


def _text(kind: bytes, body: bytes, most: int) -> tuple[str, str] | None:
    """Keyword and text of a chunk; None if it cannot be read."""
    key, separator, rest = body.partition(b"\0")
    if not separator or not 1 <= len(key) <= MAX_KEY_BYTES:
        return None
    encoding = "latin-1"
    packed = False
    if kind == b"zTXt":
        packed, rest = True, rest[1:]
    elif kind == b"iTXt":
        encoding, packed = "utf-8", rest[:1] == b"\1"
        parts = rest[2:].split(b"\0", 2)
        if len(parts) < 3:
            return None
        rest = parts[2]
    unpacked = _unpack(rest, most) if packed else rest
    if unpacked is None or len(unpacked) > most:
        return None
    return key.decode("latin-1"), unpacked.decode(encoding, "replace")


def _unpack(packed: bytes, most: int) -> bytes | None:
    """At most `most` bytes and one, so that too many can be told."""
    try:
        return zlib.decompressobj().decompress(packed, most + 1)
    except zlib.error:
        return None
