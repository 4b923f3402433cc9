"""Pictures in and out: strangers' bytes to pixels, pixels to bytes of nothing but themselves."""

import io
import warnings
from collections.abc import Mapping
from functools import cache

import pillow_heif
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from darkroom.schemas import OutputFormat

READABLE = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF")
MAX_SIDE = 16_384  # pixels; beyond any camera, and a 50,000×1 strip is a mistake or an attack
JPEG_QUALITY = 92
WEBP_QUALITY = 90
THUMBNAIL_QUALITY = 80


class PictureError(ValueError):
    """The bytes are not a picture that we read, or a larger one than we read."""


@cache
def _register_heif() -> None:
    pillow_heif.register_heif_opener()


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Read an upload.

    The size is checked from the header, before anything is decoded. EXIF orientation is applied
    and all metadata dropped. Of an animation the first frame is taken.

    Args:
        data: the file's bytes.
        max_pixels: width × height allowed.

    Returns:
        A picture of mode RGB, RGBA or L, of 8 bits a channel.

    Raises:
        PictureError: not a picture, truncated, or too large.
    """
    _register_heif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=READABLE) as opened:
                _check_size(opened, max_pixels)
                opened.load()
                picture = ImageOps.exif_transpose(opened)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError("the picture has too many pixels") from None
    except UnidentifiedImageError:
        raise PictureError("these bytes are not a picture in a format we read") from None
    except PictureError:
        raise
    except Exception as error:
        # Decoders meet hostile bytes with every kind of exception: SyntaxError, struct.error,
        # IndexError, EOFError … All of them mean the same to the caller.
        raise PictureError(f"the picture cannot be decoded: {error}") from error
    return _eight_bit(picture)


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if max(width, height) > MAX_SIDE:
        raise PictureError(f"the picture is {width}×{height}; a side may have {MAX_SIDE} pixels")
    if width * height > max_pixels:
        raise PictureError(f"the picture is {width}×{height}; it may have {max_pixels} pixels")
    if width < 8 or height < 8:
        raise PictureError(f"the picture is {width}×{height}; a side has at least 8 pixels")


def _eight_bit(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or picture.mode == "I":
        picture = picture.convert("I").point(lambda value: value / 257 + 0.5).convert("L")
    if picture.mode in ("RGB", "RGBA", "L"):
        return picture
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    return picture.convert("L" if picture.mode in ("1", "F") else "RGB")


def opaque(picture: Image.Image) -> Image.Image:
    """As RGB; what is transparent becomes white."""
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def as_mask(picture: Image.Image) -> Image.Image:
    """As L, where white is repainted.

    A mask drawn as luminance is taken as it is. One without any light in it, drawn in alpha
    alone, is repainted where it is opaque.
    """
    if picture.mode == "RGBA":
        alpha = picture.getchannel("A")
        light = opaque_on_black(picture)
        if light.getbbox() is None and alpha.getextrema() != (255, 255):
            return alpha
        return light
    return picture.convert("L")


def opaque_on_black(picture: Image.Image) -> Image.Image:
    black = Image.new("RGBA", picture.size, "black")
    return Image.alpha_composite(black, picture).convert("L")


def encode(
    picture: Image.Image, output_format: OutputFormat, text: Mapping[str, str] | None = None
) -> bytes:
    """Write a picture. The same pixels and text give the same bytes.

    Args:
        picture: RGB or L.
        output_format: of the file.
        text: keys and values for PNG text chunks; other formats carry none.
    """
    buffer = io.BytesIO()
    match output_format:
        case OutputFormat.PNG:
            info = PngInfo()
            for key, value in (text or {}).items():
                info.add_text(key, value)
            picture.save(buffer, "PNG", pnginfo=info)
        case OutputFormat.JPEG:
            picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        case OutputFormat.WEBP:
            picture.save(buffer, "WEBP", quality=WEBP_QUALITY)
    return buffer.getvalue()


def thumbnail(data: bytes, width: int) -> bytes:
    """A stored picture at most `width` pixels wide, as WebP."""
    with Image.open(io.BytesIO(data)) as picture:
        small = picture.convert("RGB")
    if width < small.width:
        height = max(1, round(small.height * width / small.width))
        small = small.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()


def transcode(data: bytes, output_format: OutputFormat) -> bytes:
    """A stored picture in another format."""
    with Image.open(io.BytesIO(data)) as picture:
        return encode(picture.convert("RGB"), output_format)


def encode_quickly(picture: Image.Image) -> bytes:
    """Lossless, for uploads on their way to the worker: large photographs must not take seconds."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
