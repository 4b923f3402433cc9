"""Which size a picture gets that was not told one."""

from pathlib import Path

import pytest

from darkroom.api import checks
from darkroom.api.checks import Source
from darkroom.catalog.models import ModelCatalog
from darkroom.requests import EditRequest
from darkroom.responses import ModelInfo
from tests.catalog.conftest import QWEN_VAE, box, catalog, transformer_folder

__all__ = ["box", "catalog"]  # fixtures


@pytest.fixture(scope="module")
def tintype() -> ModelInfo:
    return ModelCatalog(Path("none"), "tintype").find(None).info


@pytest.mark.parametrize("size", [(128, 128), (160, 160), (96, 200), (64, 64)])
def test_what_the_model_can_do_stays_as_it_is(tintype: ModelInfo, size: tuple[int, int]) -> None:
    assert checks.fit_size(*size, tintype) == size


def test_what_is_not_a_multiple_is_rounded(tintype: ModelInfo) -> None:
    assert checks.fit_size(101, 131, tintype) == (104, 128)


@pytest.mark.parametrize("size", [(451, 300), (4032, 3024), (3024, 4032), (16384, 8192)])
def test_a_photograph_comes_down_to_the_models_own_pixels(
    tintype: ModelInfo, size: tuple[int, int]
) -> None:
    width, height = checks.fit_size(*size, tintype)

    assert width * height == pytest.approx(128 * 128, rel=0.1)
    assert width / height == pytest.approx(size[0] / size[1], rel=0.1)


@pytest.mark.parametrize("size", [(8, 8), (16384, 8), (8, 16384), (16384, 16384), (9, 5000)])
def test_whatever_comes_the_model_can_do_the_answer(
    tintype: ModelInfo, size: tuple[int, int]
) -> None:
    assert checks.check_size(*checks.fit_size(*size, tintype), tintype) == []


EDITS = EditRequest(prompt="make it rain", references=("image:x",))


@pytest.mark.parametrize("size", [(256, 128), (1024, 512), (4000, 2000), (400, 200)])
@pytest.mark.parametrize("pipeline", ["FluxKontextPipeline", "QwenImageEditPlusPipeline"])
def test_some_models_edit_to_a_megapixel(
    box: Path, catalog: ModelCatalog, pipeline: str, size: tuple[int, int]
) -> None:
    transformer_folder(box, pipeline, vae=QWEN_VAE)
    entry = catalog.find("model")

    width, height = checks.choose_size(EDITS, entry, Source(None, "image:x", size))

    assert width * height == pytest.approx(1024 * 1024, rel=0.03)
    assert width / height == pytest.approx(2, rel=0.03)
    assert checks.check_size(width, height, entry.info) == []


@pytest.mark.parametrize("size", [(512, 256), (640, 480), (1024, 1024)])
def test_others_keep_the_size_of_a_reference(
    box: Path, catalog: ModelCatalog, size: tuple[int, int]
) -> None:
    transformer_folder(box, "Flux2KleinPipeline")

    found = checks.choose_size(EDITS, catalog.find("model"), Source(None, "image:x", size))

    assert found == size


def test_a_size_that_is_asked_for_is_kept(box: Path, catalog: ModelCatalog) -> None:
    transformer_folder(box, "FluxKontextPipeline")
    asked = EDITS.model_copy(update={"width": 320, "height": 256})

    found = checks.choose_size(asked, catalog.find("model"), Source(None, "image:x", (64, 64)))

    assert found == (320, 256)
