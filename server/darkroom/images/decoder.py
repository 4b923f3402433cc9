"""The other side of `images/decoder_pool.py`: a process in which strangers' bytes become pixels.

Decoders are large C libraries, and this is where hostile files reach them. A process that one of
them crashes, or that one of them makes grow or spin, ends alone.
"""

import contextlib
import enum
import math
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from darkroom.images import codec


class Purpose(enum.StrEnum):
    """What a picture is for, by the name of its field."""

    IMAGE = "image"
    MASK = "mask_image"
    CUTOUT = "mask"  # OpenAI's masks: what is transparent is repainted


@dataclass(frozen=True)
class Decoded:
    """An upload as it is stored.

    Attributes:
        png: the file, which holds pixels and nothing else: RGB of an image, L of a mask, in which
            white is repainted.
        width: in pixels.
        height: in pixels.
        darkest: value in any channel of any pixel, 0 to 255.
        lightest: value in any channel of any pixel, 0 to 255.
    """

    png: bytes
    width: int
    height: int
    darkest: int
    lightest: int


def enter(memory_bytes: int) -> None:
    """Make this process one that may do no harm. Called once, before the first picture.

    Args:
        memory_bytes: that may be taken on top of what the process has now.
    """
    codec.load_readers()  # before the limit, which counts what is there already
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Python's handlers wait for C code to return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the limit is not kept, or there is no /proc
        limit = _address_space_bytes() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with Path(os.devnull).open(
        "wb"
    ) as nowhere:  # C libraries print what they think of hostile files
        os.dup2(nowhere.fileno(), sys.stderr.fileno())


def decode_within(cpu_s: float, data: bytes, purpose: Purpose, max_pixels: int) -> Decoded:
    """As `decode`, in a process that the kernel ends after so much processor time."""
    _allow_cpu(cpu_s)
    return decode(data, purpose, max_pixels)


def decode(data: bytes, purpose: Purpose, max_pixels: int) -> Decoded:
    """Read an upload and write it as it is stored.

    Args:
        data: the file's bytes.
        purpose: what becomes of it.
        max_pixels: width × height allowed.

    Raises:
        PictureError: says what is wrong with it.
    """
    try:
        picture = codec.decode(data, max_pixels)
        match purpose:
            case Purpose.IMAGE:
                picture = codec.opaque(picture)
            case Purpose.MASK:
                picture = codec.as_mask(picture)
            case Purpose.CUTOUT:
                picture = codec.as_cutout(picture)
        darkest, lightest = codec.extrema(picture)
        return Decoded(codec.encode_quickly(picture), *picture.size, darkest, lightest)
    except MemoryError:
        raise codec.PictureError("decoding the picture takes too much memory") from None


def _allow_cpu(seconds: float) -> None:
    """From now on. The limit counts a process's whole life, so it moves with every picture."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + seconds) + 1
    with contextlib.suppress(ValueError):  # beyond a limit that the owner has set
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _end_with_parent() -> None:
    """However web ends, nobody is left to send the picture to.

    The kernel's own signal for this, PR_SET_PDEATHSIG, comes when the *thread* ends that started
    us, which any of web's may.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
