"""Encodes pictures, and changes those that are decoded. Of text, files hold what they are given."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from PIL import Image, ImageChops, ImageOps
from PIL.PngImagePlugin import PngInfo

from darkroom.errors import DarkroomError, message

if TYPE_CHECKING:  # else pydantic would take 15 MiB in each process that decodes
    from darkroom.requests import OutputFormat

EXIF, USER_COMMENT = 0x8769, 0x9286  # tags of EXIF 2.32, sections 4.6.3 and 4.6.5
UTF_16 = b"UNICODE\0"  # before a comment's text
MAX_COMMENT_BYTES = 65_000  # a JPEG has room for 64 KiB of EXIF

MAX_SIDE = 16_384  # pixels; beyond any camera, and a 50,000×1 strip is a mistake or an attack
# Pixels a side of what a format can hold: WebP's is 14 bits, JPEG's 16 (libjpeg's limit).
LONGEST_SIDE = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}
PNG_LEVEL = 6
JPEG_QUALITY = 92
WEBP_QUALITY = 90
THUMBNAIL_QUALITY = 80

# Of timelines:
MAX_FRAMES = 150
MAX_PIXELS = 8_000_000  # of all frames together, which are in memory at once: 32 MB
TIMELINE_QUALITY = 70  # of the stored previews; more would only keep their artefacts
DEVELOPING_MS = 4_000  # of all previews together, whatever the number of steps
FRAME_MS = (40, 200)  # browsers slow down frames under 20 ms; over 200 ms it looks jerky
HOLD_MS = 2_000  # of the last frame, the result

MARKED = 128  # from this value on, of 0 to 255, a mask's pixel is repainted
# Of masks: how far apart the channels of a grey are, and how many greys are dark or light.
GREY_NOISE = 16
DARK = 64

# Of a reference: models read up to 1 megapixel of each, and 16 photographs would take gigabytes.
REFERENCE_PIXELS = 4 * 2**20

T = TypeVar("T")


class PictureError(DarkroomError, ValueError):
    """The bytes are not a picture in a supported format, or a too large one."""


def opaque(picture: Image.Image) -> Image.Image:
    """The picture as RGB. Transparent parts become white."""
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def as_reference(picture: Image.Image) -> Image.Image:
    """The picture as RGB, reduced to about `REFERENCE_PIXELS` if it has more."""
    picture = opaque(picture)
    pixels = picture.width * picture.height
    if pixels <= REFERENCE_PIXELS:
        return picture
    scale = (REFERENCE_PIXELS / pixels) ** 0.5
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)


def extrema(channel: Image.Image) -> tuple[int, int]:
    """The least and the largest value of a picture of one channel of 8 bits."""
    return cast("tuple[int, int]", channel.getextrema())


def as_mask(picture: Image.Image) -> Image.Image:
    """The picture as a mask of mode L, where white is repainted.

    Strokes on a clear layer are repainted, whatever their colour and opacity. Without clear parts
    the brightest channel is the mask, so that any colour on black is as good as white. A mask in
    black and white that has clear parts as well stays one: they count as black.

    Raises:
        PictureError: it has colours on white, which say nothing.
    """
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    if alpha is None or extrema(alpha)[0] == 255:
        return _brightest(picture)
    black = Image.new("RGBA", picture.size, "black")
    light = Image.alpha_composite(black, picture)
    painted = alpha.point(lambda value: 255 if value >= MARKED else 0)
    if _is_black_and_white(light, painted):
        return light.convert("L")
    strongest = extrema(alpha)[1]
    if strongest in (0, 255):
        return alpha
    return alpha.point(lambda value: round(value * 255 / strongest))


def _brightest(picture: Image.Image) -> Image.Image:
    """A picture's luminance; if it has colours, the largest of its channels at each pixel."""
    if picture.mode == "L" or _is_grey(picture):
        return picture.convert("L")
    red, green, blue = picture.convert("RGB").split()
    light = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    several = any(low != high for low, high in (extrema(c) for c in (red, green, blue)))
    if several and extrema(light)[0] >= MARKED:
        raise PictureError(
            message(
                "mask_colours",
                "the mask has colours on white; paint on black or on a clear layer",
            )
        )
    return light


def _is_grey(picture: Image.Image) -> bool:
    """Whether a picture has no colours, but for what JPEG adds."""
    red, green, blue = picture.convert("RGB").split()
    pairs = ((red, green), (green, blue))
    return all(extrema(ImageChops.difference(*pair))[1] <= GREY_NOISE for pair in pairs)


def _is_black_and_white(picture: Image.Image, painted: Image.Image) -> bool:
    """Whether the painted part of a picture is grey, and some of it dark and some of it light."""
    counts = picture.getchannel("R").histogram(painted)
    return any(counts[:DARK]) and any(counts[-DARK:]) and _is_grey(picture)


def as_cutout(picture: Image.Image) -> Image.Image:
    """The transparent parts as a mask of mode L, where white is repainted: OpenAI's convention.

    Raises:
        PictureError: it has no alpha channel.
    """
    if picture.mode != "RGBA":
        raise PictureError("the mask has no alpha channel; its transparent part is repainted")
    return ImageChops.invert(picture.getchannel("A"))


def check_sides(size: tuple[int, int], output_format: "OutputFormat") -> None:
    """PictureError if a picture of this size cannot be written in a format."""
    longest = LONGEST_SIDE[output_format]
    if max(size) > longest:
        raise PictureError(
            f"a picture of {size[0]}×{size[1]} does not fit into "
            f"{output_format.upper()}, whose sides have at most {longest} pixels"
        )


def encode(
    picture: Image.Image,
    output_format: "OutputFormat",
    text: Mapping[str, str] | None = None,
    png_level: int = PNG_LEVEL,
) -> bytes:
    """Encode an RGB or L picture. The same pixels, text and level give the same bytes.

    PNG files contain the text, in a chunk for each key. Others contain `parameters` of it, as
    EXIF's comment, where A1111 writes it and reads it.

    Args:
        png_level: zlib's, from 0, not compressed, to 9, the smallest files.
    """
    buffer = io.BytesIO()
    match output_format:
        case "png":
            info = PngInfo()
            for key, value in (text or {}).items():
                info.add_text(key, value)
            picture.save(buffer, "PNG", pnginfo=info, compress_level=png_level)
        case "jpeg":
            exif = _exif(text)
            picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, exif=exif)
        case "webp":
            picture.save(buffer, "WEBP", quality=WEBP_QUALITY, exif=_exif(text))
    return buffer.getvalue()


def _exif(text: Mapping[str, str] | None) -> bytes:
    """EXIF with `parameters` as its comment; empty without it, and if it is too long."""
    comment = UTF_16 + (text or {}).get("parameters", "").encode("utf-16-be")
    if not len(UTF_16) < len(comment) <= MAX_COMMENT_BYTES:
        return b""
    exif = Image.Exif()
    exif.get_ifd(EXIF)[USER_COMMENT] = comment
    return exif.tobytes()


def thumbnail(data: bytes, width: int) -> bytes:
    """Encode a stored picture as WebP, at most `width` pixels wide and as high as WebP can be."""
    with Image.open(io.BytesIO(data)) as picture:
        small = picture.convert("RGB")
    scale = min(width / small.width, LONGEST_SIDE["webp"] / small.height)
    if scale < 1:
        sides = (max(1, round(side * scale)) for side in small.size)
        small = small.resize((next(sides), next(sides)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()


def transcode(data: bytes, output_format: "OutputFormat") -> bytes:
    """Encode a stored picture in another format, with the settings that a PNG says.

    Raises:
        PictureError: it is too large for that format.
    """
    with Image.open(io.BytesIO(data)) as picture:
        check_sides(picture.size, output_format)
        said = picture.info.get("parameters")
        text = {"parameters": said} if isinstance(said, str) else None
        return encode(picture.convert("RGB"), output_format, text)


def encode_quickly(picture: Image.Image) -> bytes:
    """Encode an upload for the worker, as PNG with fast compression: photographs are large."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def evenly(items: Sequence[T], limit: int) -> list[T]:
    """At most `limit` items, at least 2, spread evenly, the first and the last included."""
    if len(items) <= limit:
        return list(items)
    return [items[round(index * (len(items) - 1) / (limit - 1))] for index in range(limit)]


def animate(previews: Sequence[bytes], picture: bytes | None) -> bytes:
    """The previews and the picture as an animated WebP that loops for ever.

    Every frame has the size of the first preview; other shapes get black bars. Some previews are
    left out if there are too many, or if they are too large.

    Args:
        previews: files of pictures, at least one, oldest first.
        picture: the file of the finished picture; None if it is not finished.
    """
    with Image.open(io.BytesIO(previews[0])) as opened:
        size = opened.size
    limit = min(MAX_FRAMES, MAX_PIXELS // (size[0] * size[1]))
    files = evenly(previews, max(2, limit - 1))
    frames = [_frame(data, size) for data in (*files, *([picture] if picture else []))]
    shortest, longest = FRAME_MS
    frame_ms = min(longest, max(shortest, DEVELOPING_MS // len(frames)))
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=[frame_ms] * (len(frames) - 1) + [HOLD_MS],
        loop=0,
        quality=TIMELINE_QUALITY,
    )
    return buffer.getvalue()


def _frame(data: bytes, size: tuple[int, int]) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        return ImageOps.pad(opened.convert("RGB"), size, Image.Resampling.LANCZOS)
