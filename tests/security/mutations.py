"""Files that are nearly pictures: every format, damaged in every way, the same for each seed."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from PIL import Image, ImageCms

from darkroom.images import decoder

PHOTO = Path(__file__).parent.parent / "data" / "photo.jpg"
EXTREMES = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)

Mutation = Callable[[random.Random, bytearray], None]


@cache
def seeds() -> tuple[bytes, ...]:
    """A small sound file of every format, in the variants that have code of their own."""
    decoder.load_readers()
    colour = Image.frombytes("RGB", (48, 40), random.Random(0).randbytes(48 * 40 * 3))
    clear = colour.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(colour.size))
    palette, grey, next_frame = colour.convert("P"), colour.convert("L"), colour.rotate(90)
    exif = Image.Exif()
    exif[decoder.ORIENTATION] = 6
    exif[0x010F] = "A camera maker"
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)  # when it was made
    space = {"icc_profile": bytes(profile)}
    several: dict[str, object] = {"save_all": True}
    made: list[tuple[Image.Image, str, dict[str, object]]] = [
        (colour, "PNG", {"exif": exif.tobytes()}),
        (clear, "PNG", {}),
        (palette, "PNG", {"transparency": 3}),
        (grey.convert("I;16"), "PNG", {}),
        (grey.convert("1"), "PNG", {}),
        (colour, "PNG", several),
        (colour, "JPEG", {"exif": exif.tobytes()}),
        (colour, "JPEG", {"progressive": True}),
        (colour, "JPEG", space),
        (grey, "WEBP", space),
        (clear, "TIFF", space),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour, "MPO", several),
        (colour, "WEBP", {}),
        (clear, "WEBP", {"lossless": True}),
        (colour, "WEBP", several),
        (palette, "GIF", {"interlace": 1}),
        (palette, "GIF", several),
        (colour, "BMP", {}),
        (palette, "BMP", {}),
        (colour, "TIFF", {"exif": exif.tobytes()}),
        (colour, "TIFF", {"compression": "tiff_lzw"}),
        (colour, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (colour, "TIFF", {"compression": "jpeg"}),
        (grey.convert("1"), "TIFF", {"compression": "group4"}),
        (colour.convert("CMYK"), "TIFF", several),
        (colour, "HEIF", {"exif": exif.tobytes()}),
        (clear, "HEIF", {}),
        (clear, "AVIF", {"exif": exif.tobytes()}),
        (colour, "AVIF", several),
    ]
    files = []
    for picture, kind, options in made:
        buffer = io.BytesIO()
        # A picture that has been saved once remembers how, hence the copies.
        more = {"append_images": [next_frame.copy()]} if options is several else {}
        picture.copy().save(buffer, kind, **options, **more)
        files.append(buffer.getvalue())
    return (*files, PHOTO.read_bytes())


def mutant(number: int) -> bytes:
    """The file of this number: a seed with one to four kinds of damage."""
    chance = random.Random(number)
    data = bytearray(chance.choice(seeds()))
    for mutation in chance.choices(MUTATIONS, k=chance.choice((1, 1, 1, 2, 4))):
        if data:
            mutation(chance, data)
    return bytes(data)


def flip_bits(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 3, 30))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def flip_bits_of_the_header(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 2, 5))):
        data[chance.randrange(min(100, len(data)))] ^= 1 << chance.randrange(8)


def truncate(chance: random.Random, data: bytearray) -> None:
    del data[chance.randrange(len(data)) :]


def cut_out(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.randrange(1, 200)]


def repeat(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(len(data))
    part = data[start : start + chance.randrange(1, 200)]
    data[start:start] = part * chance.choice((1, 2, 50))


def splice(chance: random.Random, data: bytearray) -> None:
    other = chance.choice(seeds())
    data[chance.randrange(len(data)) :] = other[chance.randrange(len(other)) :]


def fill(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(len(data))
    length = min(chance.randrange(1, 64), len(data) - start)
    data[start : start + length] = bytes([chance.choice((0, 255, 127))]) * length


def edit_a_number(chance: random.Random, data: bytearray) -> None:
    """Lengths, sizes and offsets are what decoders trust."""
    kind = chance.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(kind)
    if len(data) >= size:
        place = chance.randrange(min(len(data), chance.choice((64, 512, 10**6))) - size + 1)
        value = chance.choice(EXTREMES) % (1 << 8 * size)
        data[place : place + size] = struct.pack(kind, value)


def mend_checksums(_chance: random.Random, data: bytearray) -> None:
    """Of a PNG, so that damage reaches what lies behind the check."""
    place = 8
    while data.startswith(b"\x89PNG") and place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4


def append_noise(chance: random.Random, data: bytearray) -> None:
    data += chance.randbytes(chance.randrange(1, 500))


def replace_all_but_the_magic(chance: random.Random, data: bytearray) -> None:
    data[16:] = chance.randbytes(chance.randrange(2000))


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    flip_bits_of_the_header,
    truncate,
    cut_out,
    repeat,
    splice,
    fill,
    edit_a_number,
    edit_a_number,
    edit_a_number,
    mend_checksums,
    append_noise,
    replace_all_but_the_magic,
)
