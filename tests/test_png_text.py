"""Text in pictures' files: what is there is found, and nothing else happens."""

import io
import struct
import zlib

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from darkroom.images import codec, decoder, metadata
from darkroom.requests import OutputFormat


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


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("夜の梟 🦉 forêt".encode(), "夜の梟 🦉 forêt"),
        ("forêt".encode("utf-8-sig"), "forêt"),
        ("owl – moon".encode(), "owl – moon"),
        ("forêt".encode("latin-1"), "forêt"),
    ],
)
def test_text_is_utf_8_where_it_can_be_and_else_latin_1(body: bytes, text: str) -> None:
    """Many programs write UTF-8 where the specification has Latin-1."""
    packed = b"a\0\0" + zlib.compress(body)

    assert metadata.read_texts(png(chunk(b"tEXt", b"a\0" + body))) == {"a": text}
    assert metadata.read_texts(png(chunk(b"zTXt", packed))) == {"a": text}


def with_comment(kind: str, comment: bytes) -> bytes:
    """A picture with a comment in its EXIF."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8)).save(buffer, kind, exif=exif.tobytes())
    return buffer.getvalue()


TEXT = "a grey owl 🦉\nSteps: 24, Sampler: Euler a, Seed: 11"


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "AVIF", "HEIF", "TIFF"])
def test_a_comment_in_exif_is_read_in_every_format(kind: str) -> None:
    decoder.load_readers()
    data = with_comment(kind, b"UNICODE\0" + TEXT.encode("utf-16-be"))

    found = decoder.read_texts(data)

    assert (found.texts["UserComment"], found.size) == (TEXT, (16, 8))


@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + TEXT.encode("utf-16-le"),
        b"UNICODE\0" + TEXT.encode("utf-16"),
        b"UNICODE\0" + TEXT.encode(),
        b"ASCII\0\0\0" + TEXT.encode(),
        bytes(8) + TEXT.encode(),
        TEXT.encode(),
    ],
    ids=["little-endian", "with a mark", "UTF-8 under another name", "ASCII", "unsaid", "bare"],
)
def test_a_comment_is_read_in_every_encoding(comment: bytes) -> None:
    assert decoder.read_texts(with_comment("JPEG", comment)).texts["UserComment"] == TEXT


@pytest.mark.parametrize("output_format", [OutputFormat.JPEG, OutputFormat.WEBP])
def test_our_own_pictures_say_in_exif_how_they_were_made(output_format: OutputFormat) -> None:
    data = codec.encode(Image.new("RGB", (16, 8)), output_format, {"parameters": TEXT, "x": "y"})

    assert decoder.read_texts(data).texts == {"UserComment": TEXT}


@pytest.mark.parametrize("output_format", [OutputFormat.JPEG, OutputFormat.WEBP])
def test_a_text_that_is_too_long_for_exif_is_left_out(output_format: OutputFormat) -> None:
    text = {"parameters": "🦉" * 17_000}

    assert (
        decoder.read_texts(codec.encode(Image.new("RGB", (16, 8)), output_format, text)).texts == {}
    )


def test_a_picture_in_another_format_keeps_what_it_says() -> None:
    data = codec.encode(Image.new("RGB", (16, 8)), OutputFormat.PNG, {"parameters": TEXT})

    other = codec.transcode(data, OutputFormat.JPEG)

    assert decoder.read_texts(other).texts == {"UserComment": TEXT}


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff\xe1\0\x10Exif\0\0broken", b"RIFF\0\0\0\0WEBP"]
)
def test_files_without_a_readable_header_are_refused(data: bytes) -> None:
    with pytest.raises(codec.PictureError):
        decoder.read_texts(data)


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
