"""Makes an animation of a job's previews and picture."""

import io
from collections.abc import Sequence
from typing import TypeVar

from PIL import Image, ImageOps

MAX_FRAMES = 150
MAX_PIXELS = 8_000_000  # of all frames together, which are in memory at once: 32 MB
QUALITY = 70  # of the stored previews; more would only keep their artefacts
DEVELOPING_MS = 4_000  # of all previews together, whatever the number of steps
FRAME_MS = (40, 200)  # browsers slow down frames under 20 ms; over 200 ms it looks jerky
HOLD_MS = 2_000  # of the last frame, the result

T = TypeVar("T")


def evenly(items: Sequence[T], limit: int) -> list[T]:
    """At most `limit` items, spread evenly, the first and the last included.

    Args:
        items: in order.
        limit: at least 2.
    """
    if len(items) <= limit:
        return list(items)
    return [items[round(index * (len(items) - 1) / (limit - 1))] for index in range(limit)]


def animate(previews: Sequence[bytes], picture: bytes | None) -> bytes:
    """The previews and the picture as an animated WebP that loops for ever.

    Every frame has the size of the first preview; other shapes get black bars. Some previews are
    left out if there are too many, or if they are too large.

    Args:
        previews: files of pictures, at least one, oldest first.
        picture: the file of the finished picture, if there is one.
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
        quality=QUALITY,
    )
    return buffer.getvalue()


def _frame(data: bytes, size: tuple[int, int]) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        return ImageOps.pad(opened.convert("RGB"), size, Image.Resampling.LANCZOS)
