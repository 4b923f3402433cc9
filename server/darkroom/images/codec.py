"""Decodes and encodes pictures. Uploads may be hostile; files written contain only pixels."""

import io
import warnings
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import pillow_heif
from PIL import AvifImagePlugin, Image, ImageChops, ImageCms, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from darkroom.errors import DarkroomError

if TYPE_CHECKING:  # else pydantic would take 15 MiB in each process that decodes
    from darkroom.requests import OutputFormat

READABLE = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF")
MIN_SIDE = 8  # pixels
MAX_SIDE = 16_384  # pixels; beyond any camera, and a 50,000×1 strip is a mistake or an attack
MAX_PROFILE_BYTES = 4 * 2**20  # a printer's colour tables take 2 MB, a camera's profile 500 bytes
JPEG_QUALITY = 92
WEBP_QUALITY = 90
THUMBNAIL_QUALITY = 80

ORIENTATION = 0x0112  # EXIF 2.32, section 4.6.4
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SRGB_GAMMA = 1 / 2.2  # about; what a PNG's gAMA says of a picture that needs no correction


class PictureError(DarkroomError, ValueError):
    """The bytes are not a picture in a supported format, or a too large one."""


@cache
def load_readers() -> None:
    """Load the decoding libraries, and set each to use only the calling thread."""
    pillow_heif.register_heif_opener()
    pillow_heif.options.DECODE_THREADS = 1
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.preinit()
    Image.init()


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Decode an upload.

    The size is checked from the header before anything is decoded. EXIF orientation is applied,
    colours are converted to sRGB, and all metadata is dropped. Of several frames or pages the first
    is used.

    Args:
        data: the file's bytes.
        max_pixels: width × height allowed.

    Returns:
        A picture of mode RGB, RGBA or L, of 8 bits a channel.

    Raises:
        PictureError: not a picture, truncated, or too large.
        MemoryError: it needs more than this process's limit.
    """
    load_readers()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about dropped metadata and sizes
            with Image.open(io.BytesIO(data), formats=READABLE) as opened:
                _check_size(opened, max_pixels)
                opened.load()
                _check_size(opened, max_pixels)  # some formats know it only now
                return _upright(_bare(_in_srgb(opened)), _orientation(opened))
    except Image.DecompressionBombError:
        raise PictureError("the picture has too many pixels") from None
    except UnidentifiedImageError:
        raise PictureError("these bytes are not a picture in a format we read") from None
    except (PictureError, MemoryError):
        raise
    except Exception as error:
        # Decoders raise every kind of exception on hostile bytes: SyntaxError, struct.error,
        # IndexError, EOFError … All mean the same to the caller.
        raise PictureError(f"the picture cannot be decoded: {error}") from error


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if max(width, height) > MAX_SIDE:
        raise PictureError(f"the picture is {width}×{height}; a side may have {MAX_SIDE} pixels")
    if width * height > max_pixels:
        raise PictureError(f"the picture is {width}×{height}; it may have {max_pixels} pixels")
    if min(width, height) < MIN_SIDE:
        detail = f"the picture is {width}×{height}; a side has at least {MIN_SIDE} pixels"
        raise PictureError(detail)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation; 1, upright, if there is none or it is broken."""
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # of every kind, as above; the pixels are still good
        return 1


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    method = UPRIGHT.get(orientation)
    return picture if method is None else picture.transpose(method)


def _in_srgb(picture: Image.Image) -> Image.Image:
    """The picture in sRGB with 8 bits a channel.

    Phones store photographs in Display P3. Without conversion they would lose saturation, because
    the profile is dropped with all other metadata.
    """
    profile, gamma = picture.info.get("icc_profile"), picture.info.get("gamma")
    declared = profile is not None or "srgb" in picture.info
    lab = picture.mode == "LAB"
    if not lab and picture.mode != "CMYK":
        picture = _eight_bit(picture)
    if lab or (profile and len(profile) <= MAX_PROFILE_BYTES):
        picture = _by_profile(picture, profile)
    elif gamma and not declared:
        picture = _by_gamma(picture, gamma)
    return _eight_bit(picture)


def _bare(picture: Image.Image) -> Image.Image:
    """A copy without metadata: Pillow would write the content of `info` into files."""
    copy = picture.copy()
    copy.info = {}
    return copy


def _eight_bit(picture: Image.Image) -> Image.Image:
    if picture.mode in ("F", "I"):
        raise PictureError("the picture has 32 bits a channel; 8 and 16 can be read")
    if picture.mode.startswith("I;16"):
        return picture.convert("I").point(lambda value: value / 257 + 0.5).convert("L")
    if picture.has_transparency_data:
        return picture if picture.mode == "RGBA" else picture.convert("RGBA")
    if picture.mode in ("RGB", "L"):
        return picture
    return picture.convert("L" if picture.mode == "1" else "RGB")


def _by_profile(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert from the space of an ICC profile to sRGB; unchanged if the profile is not usable.

    Args:
        picture: of mode RGB, RGBA, L, CMYK or LAB.
        profile: None for LAB's own.
    """
    srgb = ImageCms.createProfile("sRGB")
    try:
        source = (
            ImageCms.createProfile("LAB")
            if profile is None or picture.mode == "LAB"
            else ImageCms.ImageCmsProfile(io.BytesIO(profile))
        )
        bare = picture.convert("RGB") if picture.mode == "RGBA" else picture
        changed = ImageCms.profileToProfile(bare, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        if picture.mode == "LAB":
            raise
        return picture
    assert changed is not None
    if picture.mode == "RGBA":
        changed.putalpha(picture.getchannel("A"))
    if picture.mode == "L":
        return changed.convert("L")
    return changed


def _by_gamma(picture: Image.Image, gamma: float) -> Image.Image:
    """Convert from the gamma that a PNG declares (PNG specification, section 11.3.2.2)."""
    exponent = SRGB_GAMMA / gamma
    if not 0.1 <= exponent <= 10 or abs(exponent - 1) < 0.05:
        return picture  # not plausible, or too small a change to see
    curve = [round(255 * (value / 255) ** exponent) for value in range(256)]
    straight = list(range(256))
    tables = {"L": curve, "RGB": curve * 3, "RGBA": curve * 3 + straight}
    return picture.point(tables[picture.mode])


def opaque(picture: Image.Image) -> Image.Image:
    """The picture as RGB. Transparent parts become white."""
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def as_mask(picture: Image.Image) -> Image.Image:
    """The picture as a mask of mode L, where white is repainted.

    The luminance is the mask. A completely black picture with an alpha channel is a mask in alpha:
    its opaque parts are repainted.
    """
    if picture.mode == "RGBA":
        alpha = picture.getchannel("A")
        light = opaque_on_black(picture)
        if light.getbbox() is None and alpha.getextrema() != (255, 255):
            return alpha
        return light
    return picture.convert("L")


def as_cutout(picture: Image.Image) -> Image.Image:
    """The picture as a mask of mode L, where white is repainted: its transparent parts.

    That is the convention of OpenAI's API.

    Raises:
        PictureError: it has no alpha channel.
    """
    if picture.mode != "RGBA":
        raise PictureError("the mask has no alpha channel; its transparent part is repainted")
    return ImageChops.invert(picture.getchannel("A"))


def opaque_on_black(picture: Image.Image) -> Image.Image:
    black = Image.new("RGBA", picture.size, "black")
    return Image.alpha_composite(black, picture).convert("L")


def extrema(picture: Image.Image) -> tuple[int, int]:
    """The smallest and the largest value in any channel of any pixel, 0 to 255."""
    present = {place % 256 for place, count in enumerate(picture.histogram()) if count}
    return min(present), max(present)


def encode(
    picture: Image.Image, output_format: "OutputFormat", text: Mapping[str, str] | None = None
) -> bytes:
    """Encode a picture. The same pixels and text give the same bytes.

    Args:
        picture: RGB or L.
        output_format: of the file.
        text: keys and values for PNG text chunks; ignored for other formats.
    """
    buffer = io.BytesIO()
    match output_format:
        case "png":
            info = PngInfo()
            for key, value in (text or {}).items():
                info.add_text(key, value)
            picture.save(buffer, "PNG", pnginfo=info)
        case "jpeg":
            picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        case "webp":
            picture.save(buffer, "WEBP", quality=WEBP_QUALITY)
    return buffer.getvalue()


def thumbnail(data: bytes, width: int) -> bytes:
    """Encode a stored picture as WebP, at most `width` pixels wide."""
    with Image.open(io.BytesIO(data)) as picture:
        small = picture.convert("RGB")
    if width < small.width:
        height = max(1, round(small.height * width / small.width))
        small = small.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()


def transcode(data: bytes, output_format: "OutputFormat") -> bytes:
    """Encode a stored picture in another format."""
    with Image.open(io.BytesIO(data)) as picture:
        return encode(picture.convert("RGB"), output_format)


def encode_quickly(picture: Image.Image) -> bytes:
    """Encode an upload for the worker, as PNG with fast compression: photographs are large."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
