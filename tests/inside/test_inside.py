"""docs/how-it-works.md: its pictures and numbers are those that the demo model gives."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inside import __main__ as inside
from inside.autoencoder import kl
from inside.model import Model
from inside.words import area, told_apart

ROOT = Path(__file__).parents[2]
PAGE = ROOT / inside.PAGE
NUMBER = re.compile(r"\b\d+\.\d+\b")


def shown(name: str) -> Path:
    """A picture of the page."""
    return PAGE.with_suffix("") / f"{name}.webp"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


def test_the_two_examples_of_the_kl_term() -> None:
    assert kl(0, 1, 1, 3) == pytest.approx(0.7097, abs=5e-5)
    assert kl(-4, 3.1, -4, 3) == pytest.approx(0.0011, abs=5e-5)
    assert kl(2, 0.5, 2, 0.5) == 0


def test_an_area_says_how_often_one_is_brighter_than_the_other() -> None:
    assert area(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0])) == 1
    assert area(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])) == 0
    assert area(torch.tensor([1.0, 3.0]), torch.tensor([2.0])) == 0.5
    assert area(torch.ones(2), torch.ones(3)) == 0.5


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="0 places for the table 'kl'"):
        inside.with_tables("no markers", {"kl": "|"})


def test_the_page_shows_every_picture_that_is_made_and_no_other() -> None:
    named = re.findall(r"\(how-it-works/(\w+)\.webp\)", PAGE.read_text())

    assert sorted(named) == sorted(inside.PICTURES)
    assert {path.stem for path in PAGE.with_suffix("").iterdir()} == set(inside.PICTURES)


@pytest.mark.parametrize("name", ["kl", "tokens"])
def test_a_table_of_the_page_is_what_the_model_gives(model: Model, name: str) -> None:
    compare_table(model, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["words", "flows"])
def test_the_longer_tables_are_too(model: Model, name: str) -> None:
    compare_table(model, name)


def compare_table(model: Model, name: str) -> None:
    """Numbers may differ by what another processor rounds otherwise."""
    with torch.inference_mode():
        made = inside.TABLES[name](model)

    assert NUMBER.sub("#", made) in NUMBER.sub("#", PAGE.read_text())
    (written,) = re.findall(f"<!-- {name}:.*?-->\n(.*?)\n<!-- end -->", PAGE.read_text(), re.DOTALL)
    for ours, theirs in zip(NUMBER.findall(made), NUMBER.findall(written), strict=True):
        assert float(ours) == pytest.approx(float(theirs), abs=0.03)


@pytest.mark.slow
@torch.inference_mode()
def test_a_word_carried_back_tells_its_subject_from_the_background(model: Model) -> None:
    areas = [back for _, _, back, _ in told_apart(model)]

    assert sum(one >= 0.75 for one in areas) >= 8


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page and its pictures, made by the command."""
    page = tmp_path_factory.mktemp("inside") / "page.md"
    shutil.copy(PAGE, page)
    command = [sys.executable, "-m", "inside", "--page", str(page)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return page


@pytest.mark.slow
@pytest.mark.parametrize("name", inside.PICTURES)
@torch.inference_mode()
def test_each_picture_is_the_same_every_time(
    made: Path, model: Model, name: str, tmp_path: Path
) -> None:
    first, second = made.with_suffix("") / f"{name}.webp", tmp_path / "again.webp"
    inside.save(inside.PICTURES[name](model), second)

    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as again, Image.open(shown(name)) as on_the_page:
        difference = np.abs(np.subtract(again, on_the_page, dtype=np.float32))
    assert difference.mean() < 1  # of 255: another processor rounds otherwise


@pytest.mark.slow
def test_one_command_makes_them_all(made: Path) -> None:
    assert {path.stem for path in made.with_suffix("").iterdir()} == set(inside.PICTURES)
    assert NUMBER.sub("#", made.read_text()) == NUMBER.sub("#", PAGE.read_text())
