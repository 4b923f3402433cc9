"""Previews become a film."""

import io

import pytest
from PIL import Image, ImageSequence

from darkroom.images.codec import MAX_FRAMES, MAX_PIXELS, animate, evenly


def preview(shade: int, size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(buffer, "WEBP")
    return buffer.getvalue()


def frames(film: bytes) -> list[Image.Image]:
    with Image.open(io.BytesIO(film)) as opened:
        return [frame.convert("RGB") for frame in ImageSequence.Iterator(opened)]


def durations_ms(film: bytes) -> list[int]:
    with Image.open(io.BytesIO(film)) as opened:
        found = []
        for frame in ImageSequence.Iterator(opened):
            frame.load()
            found.append(frame.info["duration"])
        return found


def shades(film: bytes) -> list[int]:
    return [frame.getpixel((32, 24))[0] for frame in frames(film)]


@pytest.mark.parametrize(
    ("count", "limit", "chosen"),
    [
        (3, 5, [0, 1, 2]),
        (5, 5, [0, 1, 2, 3, 4]),
        (9, 5, [0, 2, 4, 6, 8]),
        (1000, 2, [0, 999]),
    ],
)
def test_the_first_and_the_last_are_always_chosen(
    count: int, limit: int, chosen: list[int]
) -> None:
    assert evenly(range(count), limit) == chosen


def test_previews_come_in_order_and_the_picture_last_and_longest() -> None:
    film = animate([preview(0), preview(100), preview(200)], preview(255, (640, 480)))

    assert shades(film) == pytest.approx([0, 100, 200, 255], abs=3)
    *developing, last = durations_ms(film)
    assert len(set(developing)) == 1
    assert last >= 5 * developing[0]
    with Image.open(io.BytesIO(film)) as opened:
        assert (opened.format, opened.info["loop"]) == ("WEBP", 0)


def test_all_frames_have_the_size_of_the_first() -> None:
    film = animate([preview(0), preview(100, (32, 24))], preview(255, (512, 128)))

    *_, wide = frames(film)
    assert {frame.size for frame in frames(film)} == {(64, 48)}
    assert wide.getpixel((32, 24)) == (255, 255, 255)
    assert wide.getpixel((32, 1)) == (0, 0, 0)  # above a wide picture there is a bar, not a stretch


def test_one_preview_is_a_film_too() -> None:
    assert shades(animate([preview(100)], None)) == pytest.approx([100], abs=3)


def test_a_very_long_development_is_thinned_out() -> None:
    film = animate([preview(index % 256) for index in range(600)], preview(255))

    assert len(frames(film)) <= MAX_FRAMES
    assert sum(durations_ms(film)) < 10_000
    assert shades(film)[-1] == pytest.approx(255, abs=3)


def test_large_previews_are_fewer() -> None:
    film = animate([preview(index * 9, (800, 800)) for index in range(28)], None)

    assert 2 < len(frames(film)) <= MAX_PIXELS // (800 * 800)
