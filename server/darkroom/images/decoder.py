"""Decodes uploads, which may be hostile. Runs in the processes of `images/decoder_pool.py`.

Decoders are large C libraries. One that crashes, or takes too much memory or time, ends only its
process. What this file imports takes memory in each process, so it imports little.
"""

import contextlib
import enum
import io
import math
import multiprocessing
import os
import re
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import pillow_heif
from PIL import AvifImagePlugin, Image, ImageCms, UnidentifiedImageError

from darkroom.errors import Message, message
from darkroom.images import codec
from darkroom.images.codec import MAX_SIDE, PictureError

READABLE = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF")
MIN_SIDE = 8  # pixels
HOLE = 16  # an alpha below it, of 0 to 255, is transparent; edges and glass are not
MAX_PROFILE_BYTES = 4 * 2**20  # a printer's colour tables take 2 MB, a camera's profile 500 bytes

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
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PROGRESSIVE, SCAN = 0xC2, 0xDA  # markers of a JPEG
NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # none of those within a scan
JPEG_FILLER = b"\xaa" * 512  # unlike what libjpeg makes up
STRIP = 256  # rows

SRGB_GAMMA = 1 / 2.2  # about; what a PNG's gAMA says of a picture that needs no correction

EXIF, USER_COMMENT = 0x8769, 0x9286
TEXT_TAGS = {0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software"}
MAX_TEXT_BYTES = 2**18  # of one text in EXIF

Result = TypeVar("Result")


class Purpose(enum.StrEnum):
    """The use of an upload, by the name of its field."""

    IMAGE = "image"
    MASK = "mask_image"
    REFERENCE = "references"
    CUTOUT = "mask"  # OpenAI's masks: transparent parts are repainted


@dataclass(frozen=True)
class Decoded:
    """An upload as it is stored.

    Attributes:
        png: without metadata; RGB for an image, L for a mask, in which white is repainted.
        width, height: in pixels.
        darkest, lightest: values in any channel of any pixel, 0 to 255.
        has_hole: whether a part of the upload is transparent.
    """

    png: bytes
    width: int
    height: int
    darkest: int
    lightest: int
    has_hole: bool = False


@dataclass(frozen=True)
class Texts:
    """What a file says besides its pixels: its size, and its texts by name."""

    size: tuple[int, int]
    texts: dict[str, str]


# --- limits ----------------------------------------------------------------------------------


def enter(memory_bytes: int) -> None:
    """Limit the memory of this process, on top of what it has now. Called once, at first."""
    load_readers()  # before the limit is set
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Python's handlers wait for C code to return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the limit is not enforced, or there is no /proc
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with Path(os.devnull).open("wb") as nowhere:  # C libraries print warnings about hostile files
        os.dup2(nowhere.fileno(), sys.stderr.fileno())


def _end_with_parent() -> None:
    """End this process when the web process ends, in whatever way.

    The kernel's PR_SET_PDEATHSIG comes when the parent *thread* ends, and any of web's threads may
    have started this process.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def within(cpu_s: float, task: Callable[..., Result], *args: Any) -> Result:
    """Call a function of this file; the kernel ends the process after `cpu_s` of processor time."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + cpu_s) + 1  # it counts the process's whole life
    with contextlib.suppress(ValueError):  # beyond a limit that the owner has set
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
    return task(*args)


# --- pictures --------------------------------------------------------------------------------


def decode(data: bytes, purpose: Purpose, max_pixels: int) -> Decoded:
    """Decode an upload of at most `max_pixels`, and encode it for storage.

    Raises:
        PictureError: says what is wrong with it.
    """
    try:
        picture = read(data, max_pixels)
        clear = picture.mode == "RGBA" and codec.extrema(picture.getchannel("A"))[0] < HOLE
        match purpose:
            case Purpose.IMAGE:
                picture = codec.opaque(picture)
            case Purpose.REFERENCE:
                picture = codec.as_reference(picture)
            case Purpose.MASK:
                picture = codec.as_mask(picture)
            case Purpose.CUTOUT:
                picture = codec.as_cutout(picture)
        present = [place % 256 for place, count in enumerate(picture.histogram()) if count]
        png = codec.encode_quickly(picture)
        return Decoded(png, *picture.size, min(present), max(present), clear)
    except MemoryError:
        raise PictureError(
            message("decode_memory", "decoding the picture takes too much memory")
        ) from None


@cache
def load_readers() -> None:
    """Load the decoding libraries, and set each to use only the calling thread."""
    pillow_heif.register_heif_opener()
    pillow_heif.options.DECODE_THREADS = 1
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.preinit()
    Image.init()


def read(data: bytes, max_pixels: int) -> Image.Image:
    """The picture in an upload, of mode RGB, RGBA or L with 8 bits a channel.

    The size is checked from the header before anything is decoded. EXIF orientation is applied,
    colours are converted to sRGB, and all metadata is dropped. Of several frames or pages the first
    is used.

    Raises:
        PictureError: not a picture, truncated, or too large.
        MemoryError: it needs more than this process's limit.
    """
    load_readers()
    try:
        try:
            return _read(data, max_pixels)
        except OSError as error:
            if not data.startswith(JPEG_START) or "truncated" not in str(error):
                raise
            return _read(_ended(data), max_pixels)
    except Image.DecompressionBombError:
        raise PictureError(message("too_many_pixels", "the picture has too many pixels")) from None
    except UnidentifiedImageError:
        raise PictureError(
            message("no_picture_format", "these bytes are not a picture in a format we read")
        ) from None
    except (PictureError, MemoryError):
        raise
    except Exception as error:
        # Decoders raise every kind of exception on hostile bytes: SyntaxError, struct.error,
        # IndexError, EOFError … All mean the same to the caller.
        detail = Message(f"the picture cannot be decoded: {error}", "decode_failed")
        raise PictureError(detail) from error


def _read(data: bytes, max_pixels: int) -> Image.Image:
    """As `read`; raises whatever the decoders do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about dropped metadata and sizes
        with Image.open(io.BytesIO(data), formats=READABLE) as opened:
            _check_size(opened, max_pixels)
            opened.load()
            _check_size(opened, max_pixels)  # some formats know it only now
            picture = _in_srgb(opened).copy()
            picture.info = {}  # Pillow would write it into files
            turn = UPRIGHT.get(_orientation(opened))
            return picture if turn is None else picture.transpose(turn)


def _ended(data: bytes) -> bytes:
    """A JPEG that lacks its end marker, which some messengers and cameras drop, with one.

    libjpeg reads on in what follows, and makes up what is not there. If the pixels are all there,
    they are the same whatever follows.

    Raises:
        PictureError: some pixels are missing.
    """
    data = data.removesuffix(JPEG_END[:1])  # half of a marker
    whole, other = data + JPEG_END, data + JPEG_FILLER + JPEG_END
    if not _has_every_scan(whole) or _pixels_digest(whole) != _pixels_digest(other):
        raise PictureError(
            message("cut_off", "the picture is cut off: a part of its data is missing")
        )
    return whole


def _has_every_scan(data: bytes) -> bool:
    """Whether the scans of a progressive JPEG give every coefficient to its last bit.

    Cut off between two scans, it is a whole picture, but a coarse one (ITU-T T.81, annex G).
    Others have one scan for each component, and are told apart by their pixels.
    """
    components: set[int] = set()
    known: set[tuple[int, int]] = set()  # component and coefficient
    place = len(JPEG_START)
    while place + 4 <= len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        body = data[place + 4 : place + 2 + length]
        place += 2 + length
        if marker == PROGRESSIVE:
            components = {body[6 + 3 * number] for number in range(body[5])}
        elif marker == SCAN:
            count = body[0]
            first, last, bits = body[1 + 2 * count : 4 + 2 * count]
            if bits & 0x0F == 0:  # no lower bit is left for a later scan
                scanned = [body[1 + 2 * number] for number in range(count)]
                known |= {(each, c) for each in scanned for c in range(first, last + 1)}
            found = NEXT_MARKER.search(data, place)
            place = found.start() if found else len(data)
    return len(known) == 64 * len(components) or not components


def _pixels_digest(data: bytes) -> bytes:
    """SHA-256 of a JPEG's pixels, as they are stored."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        picture.load()
        found = sha256()
        for top in range(0, picture.height, STRIP):
            box = (0, top, picture.width, min(picture.height, top + STRIP))
            found.update(picture.crop(box).tobytes())
        return found.digest()


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if max(width, height) > MAX_SIDE:
        raise PictureError(
            message(
                "picture_side",
                "the picture is {width}×{height}; a side may have {most} pixels",
                width=width,
                height=height,
                most=MAX_SIDE,
            )
        )
    if width * height > max_pixels:
        raise PictureError(
            message(
                "picture_pixels",
                "the picture is {width}×{height}; it may have {most} pixels",
                width=width,
                height=height,
                most=max_pixels,
            )
        )
    if min(width, height) < MIN_SIDE:
        raise PictureError(
            message(
                "picture_small",
                "the picture is {width}×{height}; a side has at least {least} pixels",
                width=width,
                height=height,
                least=MIN_SIDE,
            )
        )


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation; 1, upright, if there is none or it is broken."""
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # of every kind, as above; the pixels are still good
        return 1


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


def _eight_bit(picture: Image.Image) -> Image.Image:
    if picture.mode in ("F", "I"):
        raise PictureError(
            message("deep_channels", "the picture has 32 bits a channel; 8 and 16 can be read")
        )
    if picture.mode.startswith("I;16"):
        return picture.convert("I").point(lambda value: value / 257 + 0.5).convert("L")
    if picture.has_transparency_data:
        return picture if picture.mode == "RGBA" else picture.convert("RGBA")
    if picture.mode in ("RGB", "L"):
        return picture
    return picture.convert("L" if picture.mode == "1" else "RGB")


def _by_profile(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert from the space of an ICC profile to sRGB; unchanged if the profile is not usable.

    The picture is RGB, RGBA, L, CMYK or LAB; only LAB needs no profile.
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


# --- texts -----------------------------------------------------------------------------------


def read_texts(data: bytes) -> Texts:
    """The texts in a picture's EXIF and comments, by EXIF's names; no pixel is decoded.

    Raises:
        PictureError: its header cannot be read.
    """
    load_readers()
    texts: dict[str, str] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=READABLE) as opened:
                size = opened.size
                comment = opened.info.get("comment")
                exif = opened.getexif()
                found = {name: exif.get(tag) for tag, name in TEXT_TAGS.items()}
                found |= {"UserComment": exif.get_ifd(EXIF).get(USER_COMMENT), "comment": comment}
    except Exception as error:  # of every kind, as in `read`
        raise PictureError(f"the picture cannot be read: {error}") from error
    for name, value in found.items():
        text = _comment(value) if isinstance(value, bytes) else value
        if isinstance(text, str) and text.strip("\0 "):
            texts[name] = text[:MAX_TEXT_BYTES].strip("\0")
    return Texts(size, texts)


def _comment(value: bytes) -> str:
    """The text of a comment, whose first eight bytes may say its encoding (EXIF 2.32, 4.6.5)."""
    value = value[:MAX_TEXT_BYTES]
    encoding, text = value[:8], value[8:]
    if encoding.startswith(b"UNICODE") and b"\0" in text:  # else it is none
        if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return text.decode("utf-16", "replace")
        # Each letter of ASCII has a zero, in front or behind.
        little = text[1::2].count(0) > text[::2].count(0)
        return text.decode("utf-16-le" if little else "utf-16-be", "replace")
    if not encoding.startswith((b"UNICODE", b"ASCII", b"JIS", bytes(8))):
        text = value
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        return text.decode("latin-1")
