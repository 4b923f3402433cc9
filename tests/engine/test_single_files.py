"""Files of single networks, and models in one file: loaded as the folders that they were."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5Config, T5EncoderModel

from darkroom.catalog.model_entry import NumberBytes
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
        one_in=6,
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


@pytest.mark.parametrize(
    ("name", "part"), [("flux_dev", "text_encoder_2"), ("z_image", "text_encoder")]
)
def test_text_encoders_may_be_gguf_files(
    box: Path, built: Callable[[str], Path], name: str, part: str
) -> None:
    """Unpacked they are what Q8_0 keeps of them; memory is counted so."""
    folder = shutil.copytree(built(name), box / "original")
    if part == "text_encoder_2":  # gated, as the T5 of these models is
        config = T5Config.from_pretrained(folder / part)
        config.update({"is_gated_act": True, "feed_forward_proj": "gated-gelu"})
        T5EncoderModel(config).save_pretrained(folder / part)
    originals.split(folder, box, named=False)
    (box / "text_encoders" / f"model-{part}.safetensors").unlink()
    originals.gguf_encoder(folder / part, box / "text_encoders" / "encoder-Q8_0.gguf")

    found = ModelCatalog(box / "models", "tintype").find("model")
    ours = getattr(load(box), part).state_dict()
    theirs = getattr(load_folder(folder), part).state_dict()

    assert found.parts[part].path.suffix == ".gguf"
    numbers = found.numbers()[part]
    assert found.expected_parts(NumberBytes(4, 4))[part] == 4 * numbers
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=float(value.abs().max()) / 100)


def load_folder(folder: Path) -> Any:
    entry = ModelCatalog(folder.parent, "tintype").find(folder.name)
    return load_pipeline(entry, CPU, torch.float32)
