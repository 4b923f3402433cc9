"""The data set, its captions and its pictures: what tintype is shown."""

import random
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from training import captions, colours, data, vae
from training.captions import Captions, Scene, Thing
from training.latents import Latents
from training.pictures import Pictures

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found() -> data.DataSet:
    return data.load()


@pytest.fixture(scope="module")
def drawn(found: data.DataSet) -> list[tuple[Scene, str]]:
    """Two thousand scenes with captions."""
    source, rng = Captions(found.subjects), random.Random(0)
    return [source.draw(rng) for _ in range(2000)]


def test_there_are_the_things_that_people_ask_for(found: data.DataSet) -> None:
    names = {word for subject in found.subjects for word in (subject.name, *subject.words)}

    assert len(found.subjects) >= 1300
    assert {"fox", "coffee", "car", "spaceship", "football", "wizard", "crying cat"} <= names


def test_a_word_means_one_picture(found: data.DataSet) -> None:
    own = [word for subject in found.subjects for word in subject.words if " " in word]

    assert len(own) == len(set(own))


def test_captions_say_what_is_shown(found: data.DataSet, drawn: list[tuple[Scene, str]]) -> None:
    for scene, said in drawn:
        for thing in scene.things:
            subject = found.subjects[thing.subject]
            spoken = (subject.name, *subject.words, captions.plural(subject.name))
            assert any(word in said for word in spoken), (subject.name, said)
        for colour in scene.background:
            assert colour in said or colour == captions.UNNAMED


def test_captions_have_several_things_colours_and_words_that_do_not_matter(
    drawn: list[tuple[Scene, str]],
) -> None:
    assert {len(scene.things) for scene, _ in drawn} == {1, 2, 3, 4}
    assert any(thing.colour for scene, _ in drawn for thing in scene.things)
    assert any(len(scene.background) == 2 for scene, _ in drawn)
    assert any("highly detailed" in said for _, said in drawn)


def test_pairs_that_are_held_out_are_never_shown(
    found: data.DataSet, drawn: list[tuple[Scene, str]]
) -> None:
    shown = {
        frozenset(found.subjects[thing.subject].name for thing in scene.things)
        for scene, _ in drawn
    }

    assert len(captions.held_out()) == 40
    assert not shown & captions.held_out()


def test_every_scene_that_is_shown_has_latents(
    found: data.DataSet, drawn: list[tuple[Scene, str]]
) -> None:
    encoded = set(Captions(found.subjects).scenes)

    assert all(part in encoded for scene, _ in drawn for part in captions.halves(scene) or (scene,))


def test_a_pair_has_the_latents_of_its_halves(found: data.DataSet, tmp_path: Path) -> None:
    """All but at the border between them, where each half shines into the other one."""
    autoencoder = AutoencoderKL.from_pretrained(ROOT / data.TINTYPE / "vae", dtype=torch.float32)
    pair, pictures = (
        captions.pair(found.number("fox"), found.number("robot"), "blue"),
        Pictures(found),
    )
    latents = Latents(autoencoder, pictures, captions.halves(pair) or (), tmp_path / "latents.pt")
    true = vae.encode(autoencoder, pictures, [pair]) * latents.scale

    wrong = (latents.of([pair]) - true).square().mean((0, 1, 2)) / true.var()  # a column

    assert max(*wrong[:6], *wrong[-6:]) < 0.01
    assert wrong.mean() < 0.03


def test_the_same_generator_gives_the_same_captions(found: data.DataSet) -> None:
    source = Captions(found.subjects)
    first, second = ([source.draw(random.Random(s)) for s in range(20)] for _ in range(2))

    assert first == second


def test_a_scene_has_its_things_in_their_places_on_the_colour() -> None:
    red = Image.new("RGBA", (110, 110), (255, 0, 0, 255))
    green = Image.new("RGBA", (110, 110), (0, 255, 0, 255))
    pictures = Pictures(data.DataSet((), (red, green), (), ()))

    picture = pictures.scene(captions.pair(0, 1, "blue"))

    assert picture.shape == (3, 128, 128)
    assert picture[:, 64, 34].tolist() == [1, -1, -1]
    assert picture[:, 64, 94].tolist() == [-1, 1, -1]
    ground = torch.tensor(colours.BACKGROUNDS["blue"]) / 127.5 - 1
    assert torch.allclose(picture[:, 0, 0], ground)


def test_a_gradient_goes_from_the_first_colour_to_the_second() -> None:
    clear = Image.new("RGBA", (110, 110))
    pictures = Pictures(data.DataSet((), (clear,), (), ()))

    picture = pictures.scene(Scene((Thing(0),), ("red", "blue")))

    for row, colour in ((0, "red"), (127, "blue")):
        expected = torch.tensor(colours.BACKGROUNDS[colour]) / 127.5 - 1
        assert torch.allclose(picture[:, row, 5], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("colour", "word"),
    [((220, 30, 30), "red"), ((250, 140, 40), "orange"), ((40, 160, 60), "green"),
     ((20, 20, 20), "black"), ((250, 250, 250), "white"), ((60, 90, 220), "blue")],
)  # fmt: skip
def test_the_main_colour_has_the_word_a_person_would_use(
    colour: tuple[int, int, int], word: str
) -> None:
    assert colours.main_colours(Image.new("RGBA", (64, 64), (*colour, 255)))[0] == word


@pytest.mark.parametrize("colour", [*colours.HUES, *colours.GREYS])
def test_a_thing_can_be_turned_to_any_colour_that_is_named(colour: str) -> None:
    picture = Image.new("RGBA", (64, 64), (230, 60, 40, 255))

    assert colours.main_colours(colours.recoloured(picture, colour))[0] == colour
