"""Strangers' bytes to pixels, whatever the camera or program that made them."""

import io

import numpy as np
import pytest
from PIL import Image

from darkroom import pictures
from darkroom.schemas import OutputFormat

MANY = 10**8


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("picture", "kind"),
    [
        (Image.new("RGB", (16, 16), "red"), "PNG"),
        (Image.new("RGB", (16, 16), "red"), "JPEG"),
        (Image.new("RGB", (16, 16), "red"), "WEBP"),
        (Image.new("RGB", (16, 16), "red"), "BMP"),
        (Image.new("RGB", (16, 16), "red").convert("P"), "GIF"),
        (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"),
        (Image.new("RGB", (16, 16), "red"), "TIFF"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.mode,
)
def test_red_is_red_in_every_format(picture: Image.Image, kind: str) -> None:
    decoded = pictures.opaque(pictures.decode(saved(picture, kind), MANY))

    assert decoded.mode == "RGB"
    red, green, blue = decoded.getpixel((8, 8))  # type: ignore[misc]
    assert red > 230
    assert max(green, blue) < 40


def test_sixteen_bits_become_eight() -> None:
    ramp = np.linspace(0, 65535, 16 * 256).astype(np.uint16).reshape(16, 256)
    decoded = pictures.decode(saved(Image.fromarray(ramp), "PNG"), MANY)

    assert decoded.mode == "L"
    assert decoded.getextrema() == (0, 255)


def test_what_is_transparent_becomes_white() -> None:
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))

    assert pictures.opaque(pictures.decode(saved(clear, "PNG"), MANY)).getpixel((8, 8)) == (
        255, 255, 255,
    )  # fmt: skip


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)

    assert pictures.decode(data, MANY).convert("RGB").getpixel((8, 8)) == (255, 0, 0)


def test_the_pixel_limit_is_checked_before_decoding() -> None:
    data = saved(Image.new("RGB", (400, 400)), "PNG")

    assert pictures.decode(data, 160_000).size == (400, 400)
    with pytest.raises(pictures.PictureError, match="400×400"):
        pictures.decode(data, 159_999)


def test_camera_data_is_dropped() -> None:
    exif = Image.Exif()
    exif[0x010F] = "A camera maker"
    data = saved(Image.new("RGB", (16, 16)), "JPEG", exif=exif)

    kept = pictures.encode_quickly(pictures.opaque(pictures.decode(data, MANY)))

    assert b"camera maker" not in kept


@pytest.mark.parametrize("output_format", list(OutputFormat))
def test_the_same_pixels_give_the_same_bytes(output_format: OutputFormat) -> None:
    picture = Image.effect_noise((64, 64), 60).convert("RGB")
    first, second = (pictures.encode(picture, output_format, {"a": "ü🦊"}) for _ in range(2))

    assert first == second
    with Image.open(io.BytesIO(first)) as opened:
        assert opened.format == output_format.name


def test_a_luminance_mask_with_an_alpha_channel_is_read_by_its_light() -> None:
    mask = Image.new("RGBA", (16, 16), "black")
    mask.paste((255, 255, 255, 255), (4, 4, 12, 12))

    read = pictures.as_mask(mask)

    assert read.getpixel((8, 8)) == 255
    assert read.getpixel((0, 0)) == 0
