"""Runs in the processes of `images/decoder_pool.py`: decodes uploads within limits.

Decoders are large C libraries, and uploads may be hostile. One that crashes its decoder, or makes
it take too much memory or time, ends only this process. Imports little, because each process does.
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
    """The use of an upload, by the name of its field."""

    IMAGE = "image"
    MASK = "mask_image"
    CUTOUT = "mask"  # OpenAI's masks: transparent parts are repainted


@dataclass(frozen=True)
class Decoded:
    """An upload as it is stored.

    Attributes:
        png: without metadata; RGB for an image, L for a mask, in which white is repainted.
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
    """Set the limits of this process. Called once, before the first picture.

    Args:
        memory_bytes: that it may allocate on top of what it has now.
    """
    codec.load_readers()  # before the limit is set
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Python's handlers wait for C code to return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the limit is not enforced, or there is no /proc
        limit = _address_space_bytes() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with Path(os.devnull).open("wb") as nowhere:  # C libraries print warnings about hostile files
        os.dup2(nowhere.fileno(), sys.stderr.fileno())


def decode_within(cpu_s: float, data: bytes, purpose: Purpose, max_pixels: int) -> Decoded:
    """Like `decode`, but the kernel ends the process after `cpu_s` of processor time."""
    _allow_cpu(cpu_s)
    return decode(data, purpose, max_pixels)


def decode(data: bytes, purpose: Purpose, max_pixels: int) -> Decoded:
    """Decode an upload and encode it for storage.

    Args:
        data: the file's bytes.
        purpose: use of the picture.
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
    """Set the limit anew for each picture: it counts the process's whole life."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + seconds) + 1
    with contextlib.suppress(ValueError):  # beyond a limit that the owner has set
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _end_with_parent() -> None:
    """End this process when the web process ends, in whatever way.

    The kernel's PR_SET_PDEATHSIG comes when the parent *thread* ends, and any of web's threads may
    have started this process.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
