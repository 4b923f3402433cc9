"""Strangers' bytes to pixels, whatever the camera or program that made them."""

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from darkroom.config import Settings
from darkroom.images import codec, decoder, resize
from darkroom.images.codec import PictureError
from darkroom.images.decoder import Purpose
from darkroom.requests import OutputFormat

decoder.load_readers()

MANY = 10**8


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> Image.Image:
    """An upload's picture as it is stored."""
    stored = decoder.decode(data, Purpose.IMAGE, MANY)
    with Image.open(io.BytesIO(stored.png)) as picture:
        picture.load()
    return picture


RED = Image.new("RGB", (16, 16), "red")


def test_a_picture_that_is_too_large_for_a_format_is_refused() -> None:
    long = saved(Image.new("RGB", (16_384, 1)), "PNG")

    with pytest.raises(PictureError, match="16384×1 does not fit into WEBP"):
        codec.transcode(long, OutputFormat.WEBP)


def test_a_thumbnail_is_as_high_as_webp_can_be() -> None:
    high = saved(Image.new("RGB", (512, 32_768)), "PNG")

    with Image.open(io.BytesIO(codec.thumbnail(high, 300))) as small:
        assert small.size == (256, 16_383)


@pytest.mark.parametrize(
    ("picture", "kind"),
    [
        (RED, "PNG"),
        (RED, "JPEG"),
        (RED, "MPO"),
        (RED, "WEBP"),
        (RED, "BMP"),
        (RED, "TIFF"),
        (RED, "HEIF"),
        (RED, "AVIF"),
        (RED.convert("P"), "PNG"),
        (RED.convert("P"), "GIF"),
        (RED.convert("YCbCr"), "TIFF"),
        (RED.convert("RGBA"), "PNG"),
        (RED.convert("RGBA"), "HEIF"),
        (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"),
        (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "TIFF"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.mode,
)
def test_red_is_red_in_every_format(picture: Image.Image, kind: str) -> None:
    stored = decoded(saved(picture, kind))

    assert stored.mode == "RGB"
    red, green, blue = stored.getpixel((8, 8))  # type: ignore[misc]
    assert red > 230
    assert max(green, blue) < 40


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_is_grey_at_any_depth(mode: str) -> None:
    white = Image.new(mode, (16, 16), "white")

    assert decoded(saved(white, "PNG")).getpixel((8, 8)) == (255, 255, 255)


def test_colours_of_an_inverted_cmyk_file_are_right() -> None:
    """Adobe's programs write CMYK upside down, and say so in a marker, as Pillow does too."""
    data = saved(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG")

    assert b"Adobe" in data
    red, green, blue = decoded(data).getpixel((8, 8))  # type: ignore[misc]
    assert red < 20
    assert min(green, blue) > 235


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_a_channel_are_read_in_colour_too(channels: int) -> None:
    row = b"\0" + struct.pack(">4H", 65535, 32768, 0, 65535)[: 2 * channels] * 16
    header = struct.pack(">IIBBBBB", 16, 16, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    data = png(chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row * 16)))

    assert decoded(data).getpixel((8, 8)) == (255, 128, 0)


@pytest.mark.parametrize("values", [np.float32, np.int32])
def test_thirty_two_bits_a_channel_are_refused(values: type) -> None:
    data = saved(Image.fromarray(np.ones((16, 16), values)), "TIFF")

    with pytest.raises(codec.PictureError, match="32 bits"):
        decoder.read(data, MANY)


def test_sixteen_bits_become_eight() -> None:
    ramp = np.linspace(0, 65535, 16 * 256).astype(np.uint16).reshape(16, 256)
    decoded = decoder.read(saved(Image.fromarray(ramp), "PNG"), MANY)

    assert decoded.mode == "L"
    assert decoded.getextrema() == (0, 255)


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        (Image.new("RGBA", (16, 16), (0, 0, 0, 0)), {}),
        (Image.new("LA", (16, 16), (0, 0)), {}),
        (Image.new("RGB", (16, 16), (9, 9, 9)), {"transparency": (9, 9, 9)}),
        (Image.new("L", (16, 16), 9), {"transparency": 9}),
        (RED.convert("P"), {"transparency": RED.convert("P").getpixel((0, 0))}),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "-".join(value),
)
def test_what_is_transparent_becomes_white(
    picture: Image.Image, options: dict[str, object]
) -> None:
    assert decoded(saved(picture, "PNG", **options)).getpixel((8, 8)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG", "TIFF", "AVIF", "HEIF"])
def test_of_several_pictures_the_first_is_taken(kind: str) -> None:
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    data = saved(first, kind, save_all=True, append_images=[second])

    red, _, blue = decoded(data).getpixel((8, 8))  # type: ignore[misc]
    assert (red > 230, blue < 40) == (True, True)


def corner() -> Image.Image:
    """White, and red at the upper left."""
    picture = Image.new("RGB", (64, 32), "white")
    ImageDraw.Draw(picture).rectangle((0, 0, 31, 15), fill="red")
    return picture


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize(
    ("orientation", "size", "place"),
    [
        (1, (64, 32), (4, 4)),
        (2, (64, 32), (-5, 4)),
        (3, (64, 32), (-5, -5)),
        (4, (64, 32), (4, -5)),
        (5, (32, 64), (4, 4)),
        (6, (32, 64), (-5, 4)),
        (7, (32, 64), (-5, -5)),
        (8, (32, 64), (4, -5)),
    ],
)
def test_a_camera_held_in_any_way_gives_an_upright_picture_once_turned(
    kind: str, orientation: int, size: tuple[int, int], place: tuple[int, int]
) -> None:
    """HEIC says it twice, in EXIF and in a box of its own; of the two only one counts."""
    exif = Image.Exif()
    exif[decoder.ORIENTATION] = orientation
    stored = decoded(saved(corner(), kind, exif=exif.tobytes()))

    assert stored.size == size
    where = (place[0] % size[0], place[1] % size[1])
    assert stored.getpixel(where)[1] < 100  # type: ignore[index]
    reds = (np.asarray(stored)[..., 1] < 100).mean()
    assert reds == pytest.approx(0.25, abs=0.05)


def test_broken_camera_data_does_not_spoil_a_picture() -> None:
    data = saved(RED, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 40)

    assert decoded(data).size == RED.size


# --- colour --------------------------------------------------------------------------------

# Columns are the red, green and blue of a space, adapted to D50 as ICC profiles have them.
SRGB = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)
DISPLAY_P3 = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
GAMMA = 0x0233 / 256  # 2.2, as near as a profile can say it


def profile(space: np.ndarray) -> bytes:
    """An ICC profile (ICC.1:2001-04) of three colours and one gamma."""

    def xyz(values: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, 0x0233, 0)
    tags = {b"wtpt": xyz(np.array([0.9642, 1.0, 0.8249]))}
    for index, letter in enumerate(b"rgb"):
        tags[bytes([letter]) + b"XYZ"] = xyz(space[:, index])
        tags[bytes([letter]) + b"TRC"] = curve
    offset = 128 + 4 + 12 * len(tags)
    table, bodies = struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += name + struct.pack(">II", offset + len(bodies), len(body))
        bodies += body
    header = struct.pack(">I4s4s4s4s4s", 0, b"\0" * 4, b"\2\x10\0\0", b"mntr", b"RGB ", b"XYZ ")
    header += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    whole = header.ljust(128, b"\0") + table + bodies
    return struct.pack(">I", len(whole)) + whole[4:]


def p3_as_srgb(colour: tuple[int, int, int]) -> list[int]:
    light = np.linalg.inv(SRGB) @ DISPLAY_P3 @ (np.array(colour) / 255) ** GAMMA
    low, high = light * 12.92, 1.055 * np.clip(light, 0, 1) ** (1 / 2.4) - 0.055
    return [round(value) for value in 255 * np.where(light <= 0.0031308, low, high)]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_a_phones_wide_colours_are_brought_to_ours(kind: str) -> None:
    colour = (200, 100, 60)
    picture = Image.new("RGB", (16, 16), colour)
    options: dict[str, object] = {"quality": 100} if kind not in ("PNG", "TIFF") else {}
    stored = decoded(saved(picture, kind, icc_profile=profile(DISPLAY_P3), **options))

    assert np.allclose(stored.getpixel((8, 8)), p3_as_srgb(colour), atol=4)
    assert not np.allclose(stored.getpixel((8, 8)), colour, atol=10)


def test_a_profile_leaves_transparency_as_it_is() -> None:
    picture = Image.new("RGBA", (16, 16), (200, 100, 60, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 8, 16))
    stored = decoded(saved(picture, "PNG", icc_profile=profile(DISPLAY_P3)))

    assert stored.getpixel((2, 8)) == (255, 255, 255)
    assert np.allclose(stored.getpixel((12, 8)), p3_as_srgb((200, 100, 60)), atol=4)


@pytest.mark.parametrize("broken", [b"not a profile", b"", profile(SRGB)[:200], b"\0" * 5_000_000])
def test_a_profile_of_no_use_is_passed_over(broken: bytes) -> None:
    picture = Image.new("RGB", (16, 16), (200, 100, 60))

    assert decoded(saved(picture, "TIFF", icc_profile=broken)).getpixel((8, 8)) == (200, 100, 60)


@pytest.mark.parametrize(("gamma", "becomes"), [(1.0, 186), (1 / 2.2, 128), (1e-5, 128)])
def test_a_png_that_declares_its_gamma_is_believed_within_reason(
    gamma: float, becomes: int
) -> None:
    whole = saved(Image.new("RGB", (16, 16), (128, 128, 128)), "PNG")
    declared = chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))

    assert decoded(whole[:33] + declared + whole[33:]).getpixel((8, 8)) == (becomes,) * 3


def test_a_masks_black_and_white_outlive_a_profile() -> None:
    mask = Image.new("RGB", (16, 16), "black")
    mask.paste("white", (4, 4, 12, 12))
    data = saved(mask, "PNG", icc_profile=profile(DISPLAY_P3))
    stored = decoder.decode(data, Purpose.MASK, MANY)

    assert (stored.darkest, stored.lightest) == (0, 255)


def test_a_cutout_is_repainted_where_it_is_transparent() -> None:
    cutout = Image.new("RGBA", (16, 16), (200, 100, 60, 255))
    cutout.paste((0, 0, 0, 0), (4, 4, 12, 12))
    stored = decoder.decode(saved(cutout, "PNG"), Purpose.CUTOUT, MANY)

    mask = Image.open(io.BytesIO(stored.png))
    assert (mask.mode, mask.getpixel((8, 8)), mask.getpixel((0, 0))) == ("L", 255, 0)


def test_a_cutout_without_transparency_is_refused() -> None:
    with pytest.raises(codec.PictureError, match="no alpha channel"):
        decoder.decode(saved(Image.new("RGB", (16, 16)), "PNG"), Purpose.CUTOUT, MANY)


# --- limits --------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def noise() -> Image.Image:
    return Image.effect_noise((64, 48), 90).convert("RGB")


UNBATCHED = {
    "PNG": saved(noise(), "PNG"),
    "APNG": saved(noise(), "PNG", save_all=True, append_images=[RED.resize((64, 48))]),
    "JPEG": saved(noise(), "JPEG"),
    "progressive JPEG": saved(noise(), "JPEG", progressive=True),
    "CMYK JPEG": saved(noise().convert("CMYK"), "JPEG"),
    "WebP": saved(noise(), "WEBP"),
    "lossless WebP": saved(noise(), "WEBP", lossless=True),
    "GIF": saved(noise().convert("P"), "GIF"),
    "animated GIF": saved(noise().convert("P"), "GIF", save_all=True, append_images=[noise()]),
    "BMP": saved(noise(), "BMP"),
    "TIFF": saved(noise(), "TIFF"),
    "LZW TIFF": saved(noise(), "TIFF", compression="tiff_lzw"),
    "HEIC": saved(noise(), "HEIF"),
    "AVIF": saved(noise(), "AVIF"),
}


@pytest.mark.parametrize("name", UNBATCHED)
def test_of_a_truncated_file_all_is_shown_or_nothing(name: str) -> None:
    """Never a picture that is grey from the middle on. What is cut off may be of no importance."""
    whole, shown = UNBATCHED[name], decoder.read(UNBATCHED[name], MANY)
    ends = {len(whole) * part // 12 for part in range(12)} | {len(whole) - n for n in range(1, 9)}
    refused = 0
    for end in sorted(ends):
        try:
            read = decoder.read(whole[:end], MANY)
        except codec.PictureError:
            refused += 1
        else:
            assert read.tobytes() == shown.tobytes(), end
    assert refused >= 3


def test_a_progressive_jpeg_cut_off_between_two_scans_is_refused() -> None:
    """All of it is there, but coarse."""
    whole = UNBATCHED["progressive JPEG"]
    scans = [found.start() for found in re.finditer(rb"\xff\xda", whole)]
    assert len(scans) > 2

    for start in scans[1:]:
        with pytest.raises(codec.PictureError, match="cut off"):
            decoder.read(whole[:start], MANY)


def giants() -> dict[str, bytes]:
    """Files that are small, and claim to be large."""
    small, side = RED.convert("P"), struct.pack("<HH", 16_000, 16_000)
    gif, bmp, jpeg = saved(small, "GIF"), saved(RED, "BMP"), saved(RED, "JPEG")
    frame = gif.index(b",", 13) + 5  # after the image separator and its place
    sof = jpeg.index(b"\xff\xc0") + 5
    tiff, webp, avif = (
        saved(RED, "TIFF"),
        saved(RED, "WEBP", lossless=True),
        saved(RED.resize((64, 64)), "AVIF"),
    )
    wide = tiff.index(struct.pack("<HHI", 256, 4, 1)) + 8
    size, heic = struct.pack(">II", 64, 64), saved(RED.resize((64, 64)), "HEIF")
    huge = struct.pack(">II", 16_000, 16_000)
    return {
        "PNG": png(chunk(b"IHDR", struct.pack(">IIBBBBB", 16_000, 16_000, 8, 2, 0, 0, 0))),
        "PNG of all the sides there are": png(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))
        ),
        "JPEG": jpeg[:sof] + b"\xff\xff\xff\xff" + jpeg[sof + 4 :],
        "GIF with a large screen": gif[:6] + side + gif[10:],
        "GIF with a large frame": gif[:frame] + side + gif[frame + 4 :],
        "BMP": bmp[:18] + struct.pack("<ii", 16_000, 16_000) + bmp[26:],
        "TIFF": tiff[:wide] + struct.pack("<I", 2**31) + tiff[wide + 4 :],
        "WebP": webp[:21] + struct.pack("<I", 16_382 | 16_382 << 14) + webp[25:],
        "HEIC": heic.replace(b"ispe\0\0\0\0" + size, b"ispe\0\0\0\0" + huge),
        "AVIF": avif.replace(b"ispe\0\0\0\0" + size, b"ispe\0\0\0\0" + huge),
    }


@pytest.mark.parametrize("name", giants())
def test_a_file_that_claims_to_be_large_is_refused(name: str) -> None:
    with pytest.raises(codec.PictureError):
        decoder.read(giants()[name], 50_000_000)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_bomb_in_what_stands_beside_the_pixels_does_not_go_off(kind: bytes) -> None:
    bomb = zlib.compress(b"\0" * 100_000_000, 9)
    middle = {b"zTXt": b"\0\0", b"iTXt": b"\0\1\0\0\0", b"iCCP": b"\0\0"}[kind]
    whole = saved(RED, "PNG")
    data = whole[:33] + chunk(kind, b"name" + middle + bomb) + whole[33:]

    with pytest.raises(codec.PictureError, match="too large"):
        decoder.read(data, MANY)


@pytest.mark.parametrize("kind", ["ICO", "EPS", "PDF", "PPM", "TGA", "PCX", "DDS", "JPEG2000"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(codec.PictureError, match="not a picture in a format we read"):
        decoder.read(saved(RED, kind), MANY)


@pytest.mark.parametrize("size", [(1, 1), (7, 64), (64, 7)])
def test_a_picture_without_area_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(codec.PictureError, match="at least 8"):
        decoder.read(saved(Image.new("RGB", size), "PNG"), MANY)


def test_the_pixel_limit_is_checked_before_decoding() -> None:
    data = saved(Image.new("RGB", (400, 400)), "PNG")

    assert decoder.read(data, 160_000).size == (400, 400)
    with pytest.raises(codec.PictureError, match="400×400"):
        decoder.read(data, 159_999)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_camera_data_is_dropped(kind: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A camera maker"
    exif.get_ifd(0x8825)[29] = "2026:02:03"  # the day, as GPS has it
    data = saved(noise(), kind, exif=exif.tobytes(), icc_profile=profile(DISPLAY_P3))
    assert b"A camera maker" in data
    assert b"2026:02:03" in data

    stored = decoder.decode(data, Purpose.IMAGE, MANY).png

    kinds = [stored[at : at + 4] for at in chunk_places(stored)]
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}


def chunk_places(data: bytes) -> list[int]:
    """Where the names of a PNG's chunks stand."""
    places, at = [], 8
    while at < len(data):
        places.append(at + 4)
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return places


@pytest.mark.parametrize("output_format", list(OutputFormat))
def test_the_same_pixels_give_the_same_bytes(output_format: OutputFormat) -> None:
    picture = Image.effect_noise((64, 64), 60).convert("RGB")
    first, second = (codec.encode(picture, output_format, {"a": "ü🦊"}) for _ in range(2))

    assert first == second
    with Image.open(io.BytesIO(first)) as opened:
        assert opened.format == output_format.name


def test_a_luminance_mask_with_an_alpha_channel_is_read_by_its_light() -> None:
    mask = Image.new("RGBA", (16, 16), "black")
    mask.paste((255, 255, 255, 255), (4, 4, 12, 12))

    read = codec.as_mask(mask)

    assert read.getpixel((8, 8)) == 255
    assert read.getpixel((0, 0)) == 0


CLEAR, BLACK = (0, 0, 0, 0), (0, 0, 0, 255)


@pytest.mark.parametrize(
    ("mode", "stroke", "ground"),
    [
        ("RGBA", (255, 0, 0, 255), CLEAR),
        ("RGBA", (0, 0, 255, 255), (255, 255, 255, 0)),
        ("RGBA", (0, 0, 0, 255), CLEAR),
        ("RGBA", (128, 128, 128, 255), CLEAR),
        ("RGBA", (160, 0, 255, 100), CLEAR),
        ("RGBA", (0, 0, 0, 40), CLEAR),
        ("RGBA", (255, 0, 0, 255), BLACK),
        ("RGB", (0, 0, 255), (0, 0, 0)),
        ("L", 255, 0),
    ],
)
def test_a_mask_is_where_something_is_painted(mode: str, stroke: Any, ground: Any) -> None:
    mask = Image.new(mode, (16, 16), ground)
    mask.paste(stroke, (4, 4, 12, 12))

    read = codec.as_mask(mask)

    assert (read.getpixel((8, 8)), read.getpixel((0, 0))) == (255, 0)


def test_a_soft_stroke_keeps_its_edge() -> None:
    mask = Image.new("RGBA", (16, 16), CLEAR)
    for x in range(16):
        mask.paste((255, 0, 0, 17 * x), (x, 0, x + 1, 16))

    assert [codec.as_mask(mask).getpixel((x, 0)) for x in range(16)] == [17 * x for x in range(16)]


def test_a_mask_in_black_and_white_may_have_clear_parts() -> None:
    mask = Image.new("RGBA", (16, 16), BLACK)
    mask.paste((255, 255, 255, 255), (4, 4, 12, 12))
    mask.paste(CLEAR, (0, 0, 16, 2))

    read = codec.as_mask(mask)

    assert [read.getpixel(spot) for spot in ((8, 8), (2, 8), (8, 0))] == [255, 0, 0]


def test_colours_on_white_say_nothing() -> None:
    mask = Image.new("RGB", (16, 16), "white")
    mask.paste((255, 105, 180), (4, 4, 12, 12))

    with pytest.raises(PictureError, match="paint on black"):
        codec.as_mask(mask)


@pytest.mark.parametrize("size", [(96, 96), (61, 97)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_may_lack_its_end_marker_and_nothing_else(
    size: tuple[int, int], options: dict[str, Any]
) -> None:
    whole = saved(Image.effect_noise(size, 60).convert("RGB"), "JPEG", quality=90, **options)
    wanted = decoder.read(whole, 10**6).tobytes()

    for cut in (whole[:-2], whole[:-1], whole[:-2] + bytes(64), whole[:-2] + b"\r\n"):
        assert decoder.read(cut, 10**6).tobytes() == wanted
    for cut in (whole[:-10], whole[: len(whole) * 9 // 10], whole[: len(whole) // 2]):
        with pytest.raises(PictureError):
            decoder.read(cut, 10**6)


@pytest.mark.parametrize("size", [(8192, 6144), (8160, 6144), (8160, 6120)])
def test_photographs_of_fifty_megapixels_are_taken(size: tuple[int, int]) -> None:
    decoder.read(saved(Image.new("L", size, 90), "JPEG"), Settings().web.max_upload_pixels)


@pytest.mark.parametrize(("alpha", "hole"), [(0, True), (15, True), (128, False), (255, False)])
def test_a_picture_with_a_transparent_part_has_a_hole(alpha: int, hole: bool) -> None:
    picture = Image.new("RGBA", (16, 16), (9, 9, 9, 255))
    picture.paste((9, 9, 9, alpha), (4, 4, 12, 12))

    assert decoder.decode(saved(picture, "PNG"), Purpose.IMAGE, 10**6).has_hole is hole


@pytest.mark.parametrize(
    ("size", "shape", "cropped"),
    [
        ((512, 768), (1024, 1024), (512, 512)),
        ((768, 512), (1024, 1024), (512, 512)),
        ((512, 512), (1024, 512), (512, 256)),
        ((512, 512), (64, 64), (512, 512)),
    ],
)
def test_the_middle_of_a_picture_in_another_shape(
    size: tuple[int, int], shape: tuple[int, int], cropped: tuple[int, int]
) -> None:
    picture = Image.new("RGB", size)
    picture.putpixel((size[0] // 2, size[1] // 2), (255, 0, 0))

    middle = resize.crop(picture, shape)

    assert middle.size == cropped
    assert middle.getpixel((cropped[0] // 2, cropped[1] // 2)) == (255, 0, 0)
