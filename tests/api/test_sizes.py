"""Which size a picture gets that was not told one."""

from pathlib import Path

import pytest

from darkroom.api import checks
from darkroom.catalog.models import ModelCatalog
from darkroom.responses import ModelInfo


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
