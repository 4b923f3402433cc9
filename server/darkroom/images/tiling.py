"""Cuts a large picture into overlapping tiles, and blends tiles into a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

Box = tuple[int, int, int, int]  # left, top, right, bottom

# Side in pixels of a tile that an upscaler takes in one step. Small, because other jobs' steps wait
# for it: the usual network takes seconds for it on a CPU.
TILE = 128


@dataclass(frozen=True)
class Tiling:
    """The positions of a picture's tiles. Sizes are width and height in pixels.

    Attributes:
        size: of the picture.
        tile: size of every tile.
        boxes: of the tiles, row by row, all within the picture. A picture smaller than a tile has
            one box of its own size.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    boxes: tuple[Box, ...]

    def enlarged(self, times: int) -> "Tiling":
        """The same tiling for a picture `times` as large."""
        width, height = self.size
        tile_width, tile_height = self.tile
        return Tiling(
            (width * times, height * times),
            (tile_width * times, tile_height * times),
            tuple((a * times, b * times, c * times, d * times) for a, b, c, d in self.boxes),
        )


def plan(size: tuple[int, int], tile: tuple[int, int], overlap: int) -> Tiling:
    """The fewest tiles that cover a picture of this size, evenly spread.

    Neighbours overlap by at least `overlap` pixels, which is less than a tile's sides.
    """
    columns = _starts(size[0], tile[0], overlap)
    rows = _starts(size[1], tile[1], overlap)
    width, height = min(tile[0], size[0]), min(tile[1], size[1])
    boxes = tuple((x, y, x + width, y + height) for y in rows for x in columns)
    return Tiling(size, tile, boxes)


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    room = side - tile
    if room <= 0:
        return [0]
    count = -(-room // (tile - overlap)) + 1
    return [round(index * room / (count - 1)) for index in range(count)]


def overlap(side: int) -> int:
    """Overlap in pixels of neighbouring tiles of this side, for upscaling."""
    return side // 8


def for_upscaling(size: tuple[int, int]) -> Tiling:
    """The tiling of a picture of this size for an upscaler."""
    return plan(size, (TILE, TILE), overlap(TILE))


def cut(picture: Image.Image, tiles: Tiling) -> list[Image.Image]:
    """Cut a picture into its tiles."""
    return [picture.crop(box) for box in tiles.boxes]


def join(pieces: Sequence[Image.Image], tiles: Tiling) -> Image.Image:
    """Join tiles into a picture, with a linear blend where neighbours overlap.

    Tiles are joined into rows and rows into the picture: pasting each tile over all earlier ones
    would leave an edge where four tiles overlap.

    Args:
        pieces: RGB, one for each box of `tiles`; resized to the box if need be.
    """
    rows: dict[tuple[int, int], Image.Image] = {}
    done = 0
    for piece, (left, top, right, bottom) in zip(pieces, tiles.boxes, strict=True):
        row = rows.setdefault((top, bottom), Image.new("RGB", (tiles.size[0], bottom - top)))
        size = (right - left, bottom - top)
        fitting = piece.resize(size, Image.Resampling.LANCZOS) if piece.size != size else piece
        overlap = max(0, done - left) if left else 0
        row.paste(fitting, (left, 0), _ramp(size[0], overlap).resize(size))
        done = right
    whole = Image.new("RGB", tiles.size)
    done = 0
    for (top, bottom), row in rows.items():
        ramp = _ramp(bottom - top, max(0, done - top)).transpose(Image.Transpose.ROTATE_270)
        whole.paste(row, (0, top), ramp.resize(row.size))
        done = bottom
    return whole


def _ramp(length: int, overlap: int) -> Image.Image:
    """The blend weights of a tile from its left edge on, as a picture one pixel high."""
    line = Image.new("L", (length, 1), 255)
    for x in range(min(overlap, length)):
        line.putpixel((x, 0), round(255 * (x + 1) / (overlap + 1)))
    return line
