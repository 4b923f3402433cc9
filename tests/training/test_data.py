"""Captions and composites: what tintype is shown."""

import random
from pathlib import Path

import pytest
from PIL import Image

from training.data import Subject, caption, compose, main_colours

FOX = Subject("fox", ("vixen",), ("orange", "red"), Path("unused"))


def test_captions_name_the_thing_and_sometimes_its_background() -> None:
    rng = random.Random(0)
    captions = [caption(FOX, "blue", rng) for _ in range(300)]

    assert all("fox" in text or "vixen" in text for text in captions)
    assert {"a fox", "a red fox", "fox on a blue background"} <= set(captions)
    assert 0.35 < sum("blue" in text for text in captions) / 300 < 0.65


def test_the_same_generator_gives_the_same_captions() -> None:
    first, second = ([caption(FOX, "blue", random.Random(s)) for s in range(20)] for _ in range(2))

    assert first == second


def test_a_composite_shows_the_subject_on_the_colour() -> None:
    subject = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    subject.paste((255, 0, 0, 255), (64, 64, 192, 192))

    picture = compose(subject, (0, 0, 255))

    assert picture.size == (128, 128)
    assert picture.getpixel((0, 0)) == (0, 0, 255)
    assert picture.getpixel((64, 64)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("colour", "word"),
    [((220, 30, 30), "red"), ((250, 140, 40), "orange"), ((40, 160, 60), "green"),
     ((20, 20, 20), "black"), ((250, 250, 250), "white"), ((60, 90, 220), "blue")],
)  # fmt: skip
def test_the_main_colour_has_the_word_a_person_would_use(
    colour: tuple[int, int, int], word: str
) -> None:
    assert main_colours(Image.new("RGBA", (64, 64), (*colour, 255)))[0] == word
