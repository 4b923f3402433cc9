"""Random-weight models are written, served by both contestants, and counted."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks.geometry import SD15, SDXL, TINY, Geometry, unet_flops, write
from benchmarks.turn import Turn


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("geometry")
    write(TINY, folder)
    return folder


@pytest.mark.parametrize("contestant", ["ours", "stock"])
def test_each_contestant_times_the_model(models_dir: Path, contestant: str) -> None:
    turn = Turn(contestant, str(models_dir), "tiny", side=64, steps=2, together=(1, 2), repeats=3)

    times = turn.run()

    assert {count: len(seconds) for count, seconds in times.items()} == {1: 3, 2: 3}
    assert all(second > 0 for seconds in times.values() for second in seconds)


@pytest.mark.slow
def test_a_turn_in_a_process_of_its_own_says_the_same_things(models_dir: Path) -> None:
    times = Turn("stock", str(models_dir), "tiny", side=64, steps=1).take()

    assert list(times) == [1]
    assert len(times[1]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("geometry", "parameters"), [(SD15, 859_520_964), (SDXL, 2_567_463_684)])
def test_the_geometries_are_those_of_the_real_models(geometry: Geometry, parameters: int) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**geometry.unet)

    assert sum(parameter.numel() for parameter in unet.parameters()) == parameters


@pytest.mark.slow
def test_operations_are_counted_without_doing_them() -> None:
    one = unet_flops(SD15, 512, rows=1)

    assert unet_flops(SD15, 512, rows=2) == pytest.approx(2 * one, rel=1e-3)
    # Attention's part grows with the square of the pixels, and is counted.
    assert unet_flops(SD15, 1024, rows=1) > 5 * one
