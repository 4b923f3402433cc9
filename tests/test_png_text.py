"""Text in PNG files of strangers: what is there is found, and nothing else happens."""

import io
import struct
import zlib

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from darkroom.images import metadata


def chunk(kind: bytes, body: bytes, length: int | None = None) -> bytes:
    claimed = len(body) if length is None else length
    return struct.pack(">I", claimed) + kind + body + b"crc?"


def png(*chunks: bytes) -> bytes:
    return metadata.SIGNATURE + b"".join(chunks)


def test_all_kinds_of_text_are_read() -> None:
    info = PngInfo()
    info.add_text("parameters", "a fox\nSteps: 4")
    info.add_text("packed", "x" * 5000, zip=True)
    info.add_itxt("wide", "狐 a fox")
    info.add_itxt("wide and packed", "狐" * 1000, zip=True)
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG", pnginfo=info)

    assert metadata.read_texts(buffer.getvalue()) == {
        "parameters": "a fox\nSteps: 4",
        "packed": "x" * 5000,
        "wide": "狐 a fox",
        "wide and packed": "狐" * 1000,
    }


def test_a_bomb_is_passed_over() -> None:
    bomb = b"bomb\0\0" + zlib.compress(bytes(50 * 2**20))

    assert metadata.read_texts(png(chunk(b"zTXt", bomb), chunk(b"tEXt", b"a\0b"))) == {"a": "b"}


@pytest.mark.parametrize(
    "body",
    [
        chunk(b"tEXt", b"a\0b", length=2**31),
        chunk(b"tEXt", b"no separator"),
        chunk(b"tEXt", b"\0no key"),
        chunk(b"tEXt", b"k" * 80 + b"\0long key"),
        chunk(b"zTXt", b"a\0\0not zlib"),
        chunk(b"iTXt", b"a\0\0\0"),
        chunk(b"iTXt", b"a"),
        b"\0\0",
        b"",
        chunk(b"IEND", b"") + chunk(b"tEXt", b"a\0after the end"),
    ],
)
def test_what_is_broken_is_no_text(body: bytes) -> None:
    assert metadata.read_texts(png(body)) == {}


def test_texts_are_limited_in_number_and_size() -> None:
    many = [chunk(b"tEXt", b"%d\0x" % number) for number in range(1000)]
    large = [chunk(b"tEXt", b"%d\0" % number + b"x" * 2**19) for number in range(8)]

    assert len(metadata.read_texts(png(*many))) == metadata.MAX_TEXTS
    assert sum(map(len, metadata.read_texts(png(*large)).values())) <= metadata.MAX_TEXT_BYTES


def test_other_files_are_none() -> None:
    with pytest.raises(metadata.NotPngError):
        metadata.read_texts(b"\xff\xd8\xff\xe0")
