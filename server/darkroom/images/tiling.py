"""A large picture as tiles that overlap, and back, blended where they do."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

Box = tuple[int, int, int, int]  # left, top, right, bottom

# Pixels a side of what goes through an upscaler in one step. Small, because others' steps wait for
# it: the usual network takes seconds for it on a CPU.
TILE = 128


@dataclass(frozen=True)
class Tiling:
    """Where the tiles of a picture lie.

    Attributes:
        size: of the picture, width and height in pixels.
        tile: width and height of every tile.
        boxes: of the tiles, row by row. They all lie within the picture, which may be smaller
            than one tile: then there is one, of the picture's own size.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    boxes: tuple[Box, ...]

    def enlarged(self, times: int) -> "Tiling":
        """The same of a picture that many times larger."""
        width, height = self.size
        tile_width, tile_height = self.tile
        return Tiling(
            (width * times, height * times),
            (tile_width * times, tile_height * times),
            tuple((a * times, b * times, c * times, d * times) for a, b, c, d in self.boxes),
        )


def plan(size: tuple[int, int], tile: tuple[int, int], overlap: int) -> Tiling:
    """As few tiles as cover the picture, evenly spread.

    Args:
        size: of the picture.
        tile: that a model makes.
        overlap: of neighbours, in pixels, at least; less than a tile's sides.
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
    """Of neighbouring tiles of this side, when a network makes them larger one by one."""
    return side // 8


def for_upscaling(size: tuple[int, int]) -> Tiling:
    """How a picture of this size goes through an upscaler."""
    return plan(size, (TILE, TILE), overlap(TILE))


def cut(picture: Image.Image, tiles: Tiling) -> list[Image.Image]:
    """The tiles of a picture."""
    return [picture.crop(box) for box in tiles.boxes]


def join(pieces: Sequence[Image.Image], tiles: Tiling) -> Image.Image:
    """A picture from its tiles. Where neighbours overlap, one goes over into the other evenly.

    Tiles become rows and rows the picture, for what four tiles share would get an edge if each
    were laid over all before it.

    Args:
        pieces: RGB, one for each box; another size is brought to the box's.
        tiles: where they lie.
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
    """How much a tile counts, from next to nothing at its left edge to all; one pixel high."""
    line = Image.new("L", (length, 1), 255)
    for x in range(min(overlap, length)):
        line.putpixel((x, 0), round(255 * (x + 1) / (overlap + 1)))
    return line
