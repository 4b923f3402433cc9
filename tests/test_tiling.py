"""Cutting a picture into tiles and joining them."""

import itertools

import pytest
from PIL import Image, ImageChops

from darkroom.images import tiling


def gradient(width: int, height: int) -> Image.Image:
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (across, down, across))


@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [
        ((300, 200), (128, 128), 32),
        ((256, 256), (128, 128), 64),
        ((129, 64), (128, 64), 0),
        ((64, 64), (128, 128), 32),
        ((64, 300), (128, 128), 16),
    ],
)
def test_tiles_cover_the_picture_and_join_to_it_again(
    size: tuple[int, int], tile: tuple[int, int], overlap: int
) -> None:
    picture = gradient(*size)
    plan = tiling.plan(size, tile, overlap)

    joined = tiling.join(tiling.cut(picture, plan), plan)

    assert joined.size == size
    assert max(high for _, high in ImageChops.difference(joined, picture).getextrema()) <= 1


def test_neighbours_overlap_by_what_was_asked_for_at_least() -> None:
    lefts = [box[0] for box in tiling.plan((1000, 64), (128, 64), 32).boxes]

    assert lefts[0] == 0
    assert lefts[-1] == 1000 - 128
    assert all(right - left <= 128 - 32 for left, right in itertools.pairwise(lefts))


def test_where_four_tiles_meet_nothing_is_seen_of_it() -> None:
    """Tiles of different brightness go over into each other without a step."""
    plan = tiling.plan((256, 256), (128, 128), 64)
    tones = [0, 200, 90, 150, 20, 240, 60, 180, 120]
    tiles = [Image.new("RGB", (128, 128), (tone,) * 3) for tone in tones]

    joined = tiling.join(tiles, plan).convert("L")

    for turned in (joined, joined.transpose(Image.Transpose.TRANSPOSE)):
        shifted = ImageChops.offset(turned, 1, 0)
        steps = ImageChops.difference(turned, shifted).crop((1, 0, 256, 256))
        assert steps.getextrema()[1] <= 8
