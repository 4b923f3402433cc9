"""A large picture as tiles that overlap, and back, blended where they do."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

Box = tuple[int, int, int, int]  # left, top, right, bottom


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


def cut(picture: Image.Image, tiles: Tiling) -> list[Image.Image]:
    """The tiles of a picture."""
    return [picture.crop(box) for box in tiles.boxes]


def join(pieces: Sequence[Image.Image], tiles: Tiling) -> Image.Image:
    """A picture from its tiles. What a tile shares with one before it goes over into it evenly.

    Args:
        pieces: RGB, one for each box; another size is brought to the box's.
        tiles: where they lie.
    """
    whole = Image.new("RGB", tiles.size)
    done_right = done_bottom = 0
    row_top, last_bottom = -1, 0
    for piece, box in zip(pieces, tiles.boxes, strict=True):
        left, top, right, bottom = box
        if top != row_top:
            row_top, done_bottom, done_right = top, last_bottom, 0
        size = (right - left, bottom - top)
        if piece.size != size:
            piece = piece.resize(size, Image.Resampling.LANCZOS)
        weight = _ramp(size, max(0, done_right - left), max(0, done_bottom - top))
        whole.paste(piece, (left, top), weight)
        done_right, last_bottom = right, bottom
    return whole


def _ramp(size: tuple[int, int], across: int, down: int) -> Image.Image:
    """How much a tile counts: from 0 at its left and upper edge to 255 where the overlap ends."""
    width, height = size
    columns = Image.new("L", (width, 1), 255)
    for x in range(min(across, width)):
        columns.putpixel((x, 0), round(255 * (x + 1) / (across + 1)))
    rows = Image.new("L", (1, height), 255)
    for y in range(min(down, height)):
        rows.putpixel((0, y), round(255 * (y + 1) / (down + 1)))
    return _product(columns.resize(size), rows.resize(size))


def _product(first: Image.Image, second: Image.Image) -> Image.Image:
    black = Image.new("L", first.size)
    return Image.composite(first, black, second)
