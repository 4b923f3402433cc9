"""Files of single networks, and models in one file: loaded as the folders that they were."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.catalog.models import ModelCatalog
from darkroom.engine.loading import load_pipeline
from tests.effort import sampled
from tests.engine import originals, tiny, tiny_families

CPU = torch.device("cpu")
FAMILIES = (
    "sd3",
    "flux_dev",
    "flux_schnell",
    "flux_kontext",
    "chroma",
    "flux2_klein",
    "flux2_klein_distilled",
    "z_image",
    "z_image_turbo",
    "qwen_image",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model's folder by its name, built once."""
    root = tmp_path_factory.mktemp("built")

    def build(name: str) -> Path:
        folder = root / name
        if not folder.is_dir():
            (tiny_families.BUILDERS | tiny.BUILDERS)[name](folder)
            if name.startswith("qwen"):
                originals.wan_vae().save_pretrained(folder / "vae")
        return folder

    return build


def load(box: Path, name: str = "model") -> Any:
    return load_pipeline(ModelCatalog(box / "models", "tintype").find(name), CPU, torch.float32)


def assert_same(ours: Any, theirs: Any) -> None:
    """The same class and scheduler, and networks of the same weights."""
    assert type(ours) is type(theirs)
    assert ours.scheduler.config == theirs.scheduler.config
    assert ours.components.keys() == theirs.components.keys()
    for name, part in theirs.components.items():
        if isinstance(part, torch.nn.Module):
            found = getattr(ours, name).state_dict()
            assert found.keys() == part.state_dict().keys()
            for key, value in part.state_dict().items():
                assert torch.equal(found[key], value), f"{name}.{key}"


@pytest.mark.parametrize(
    ("name", "form"),
    sampled(
        [*itertools.product(FAMILIES, ["split", "whole"]), ("sd1", "split"), ("sdxl", "split")],
        one_in=3,
    ),
)
def test_a_file_is_the_folder_that_it_was_made_of(
    box: Path, built: Callable[[str], Path], name: str, form: str
) -> None:
    if form == "split":
        originals.split(built(name), box, named=False)
    else:
        originals.whole(built(name), box)

    assert_same(load(box), load_folder(built(name)))


def load_folder(folder: Path) -> Any:
    entry = ModelCatalog(folder.parent, "tintype").find(folder.name)
    return load_pipeline(entry, CPU, torch.float32)
