"""Prepares source pictures: resizing, and filling the part under a mask.

The resize modes and the fill of masked content are those of AUTOMATIC1111's web UI
(`modules/images.py`, `modules/masking.py`).
"""

import enum
import io

from PIL import Image, ImageFilter, ImageOps

FILL_PIXELS = 1_048_576  # of the copy on which the surroundings are spread
# Radius in pixels, and how often: far blurs reach the middle of the hole, near ones its edge.
FILL_BLURS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))


class Filter(enum.Enum):
    """Interpolation when a picture is enlarged."""

    LANCZOS = Image.Resampling.LANCZOS
    NEAREST = Image.Resampling.NEAREST


class ResizeMode(enum.IntEnum):
    """How a picture is fitted to a size of other proportions."""

    STRETCH = 0
    CROP = 1
    PAD = 2


def read(png: bytes) -> Image.Image:
    """Decode a picture that this server has written."""
    picture = Image.open(io.BytesIO(png))
    picture.load()
    return picture


def resize(picture: Image.Image, size: tuple[int, int], mode: ResizeMode) -> Image.Image:
    """Resize to `size`, width and height in pixels. Padding repeats the edges."""
    lanczos = Image.Resampling.LANCZOS
    if mode is ResizeMode.CROP:
        return ImageOps.fit(picture, size, lanczos)
    if mode is ResizeMode.PAD:
        return _padded(ImageOps.contain(picture, size, lanczos), size)
    return picture.resize(size, lanczos)


def _padded(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    width, height = size
    left, top = (width - picture.width) // 2, (height - picture.height) // 2
    right, bottom = left + picture.width, top + picture.height
    canvas = Image.new(picture.mode, size)
    canvas.paste(picture, (left, top))
    for edge, bar in (
        ((left, top, left + 1, bottom), (0, top, left, bottom)),
        ((right - 1, top, right, bottom), (right, top, width, bottom)),
        ((0, top, width, top + 1), (0, 0, width, top)),
        ((0, bottom - 1, width, bottom), (0, bottom, width, height)),
    ):
        across, down = bar[2] - bar[0], bar[3] - bar[1]
        if across and down:
            canvas.paste(canvas.crop(edge).resize((across, down)), bar)
    return canvas


def crop(picture: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """The middle of a picture, as large as it can be with the proportions of a width and height."""
    scale = min(picture.width / shape[0], picture.height / shape[1])
    width, height = (max(1, round(side * scale)) for side in shape)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def enlarge(picture: Image.Image, size: tuple[int, int], between: Filter) -> Image.Image:
    """Enlarge to `size`, width and height in pixels."""
    return picture.resize(size, between.value)


def fill_from_around(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """Fill an RGB picture, where an L mask of its size is white, with blurred surroundings."""
    small, hole = picture, mask
    pixels = picture.width * picture.height
    if pixels > FILL_PIXELS:
        scale = (FILL_PIXELS / pixels) ** 0.5
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        small, hole = picture.resize(size), mask.resize(size)
    kept = Image.new("RGBa", small.size)
    kept.paste(small.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(hole))
    spread = Image.new("RGBA", small.size)
    for radius, times in FILL_BLURS:
        blurred = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            spread.alpha_composite(blurred)
    filled = spread.convert("RGB").resize(picture.size, Image.Resampling.BICUBIC)
    return Image.composite(filled, picture, mask)
