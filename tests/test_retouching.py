"""Resizing to other proportions, and what lies under a mask."""

import pytest
from PIL import Image, ImageDraw

from darkroom.images import resize
from darkroom.images.resize import ResizeMode

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def flag() -> Image.Image:
    """64×32, its left half red and its right half blue."""
    picture = Image.new("RGB", (64, 32), RED)
    picture.paste(BLUE, (32, 0, 64, 32))
    return picture


@pytest.mark.parametrize("size", [(64, 64), (128, 32), (8, 100), (33, 17)])
@pytest.mark.parametrize("mode", list(ResizeMode))
def test_every_mode_gives_the_size(
    flag: Image.Image, size: tuple[int, int], mode: ResizeMode
) -> None:
    assert resize.resize(flag, size, mode).size == size


def test_padding_repeats_the_edges(flag: Image.Image) -> None:
    padded = resize.resize(flag, (128, 32), ResizeMode.PAD)
    tall = resize.resize(flag, (64, 64), ResizeMode.PAD)

    assert padded.getpixel((0, 5)) == RED
    assert padded.getpixel((127, 30)) == BLUE
    assert tall.getpixel((0, 0)) == tall.getpixel((0, 63)) == RED
    assert tall.getpixel((63, 0)) == BLUE


def test_cropping_keeps_the_middle(flag: Image.Image) -> None:
    cropped = resize.resize(flag, (16, 32), ResizeMode.CROP)

    assert cropped.getpixel((2, 5)) == RED
    assert cropped.getpixel((13, 5)) == BLUE


@pytest.fixture
def mask() -> Image.Image:
    mask = Image.new("L", (64, 32))
    ImageDraw.Draw(mask).rectangle((24, 8, 39, 23), fill=255)
    return mask


def test_a_fill_changes_what_is_marked_and_nothing_else(
    flag: Image.Image, mask: Image.Image
) -> None:
    flag.paste((0, 255, 0), (24, 8, 40, 24))
    filled = resize.fill_from_around(flag, mask)

    assert filled.getpixel((30, 16))[1] < 255
    assert filled.getpixel((10, 16)) == RED
    assert filled.getpixel((60, 30)) == BLUE


def test_the_surroundings_are_spread_into_the_hole(flag: Image.Image, mask: Image.Image) -> None:
    flag.paste((0, 255, 0), (24, 8, 40, 24))
    filled = resize.fill_from_around(flag, mask)

    red, green, blue = filled.getpixel((25, 16))
    assert red > blue
    assert green < 40
    red, green, blue = filled.getpixel((38, 16))
    assert blue > red


def test_a_photograph_is_filled_quickly_and_its_rest_is_untouched() -> None:
    picture = Image.effect_noise((4000, 3000), 60).convert("RGB")
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).ellipse((1000, 1000, 2000, 2000), fill=255)

    filled = resize.fill_from_around(picture, mask)

    assert filled.crop((0, 0, 900, 3000)).tobytes() == picture.crop((0, 0, 900, 3000)).tobytes()
