"""How large a model will be in memory: its numbers that are read, times the bytes of each."""

from pathlib import Path

import pytest

from darkroom.catalog.models import ModelCatalog
from tests.catalog.conftest import checkpoint, folder, tensors_of, write


def numbers(shapes: dict[str, tuple[int, ...]]) -> int:
    total = 0
    for shape in shapes.values():
        count = 1
        for side in shape:
            count *= side
        total += count
    return total


@pytest.mark.parametrize("number_bytes", [2, 4])
def test_a_folder_counts_the_files_that_are_read(
    box: Path, catalog: ModelCatalog, number_bytes: int
) -> None:
    path = folder(box)
    for part in ("unet", "vae"):
        stem = path / part / "diffusion_pytorch_model"
        write(stem.with_suffix(".safetensors"), {"x": (10, 10)})
        write(stem.with_suffix(".fp16.safetensors"), {"x": (10, 10)})
        write(stem.with_suffix(".non_ema.safetensors"), {"x": (10, 10)})
    (path / "safety_checker").mkdir(exist_ok=True)
    write(path / "safety_checker" / "model.safetensors", {"x": (1000,)})
    write(path / "whole.safetensors", {"x": (1000,)})
    encoder = path / "text_encoder" / "model.safetensors"
    write(encoder, {"x": (7,)})

    assert catalog.find("model").expected_bytes(number_bytes) == (100 + 100 + 7) * number_bytes


def test_a_variant_is_counted_where_it_is_read(box: Path, catalog: ModelCatalog) -> None:
    path = folder(box, kind="sdxl")
    for file in path.glob("*/*.safetensors"):
        write(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")), {"x": (5,)})
        file.unlink()

    assert catalog.find("model").expected_bytes(4) == 4 * 5 * 4  # two encoders, UNet, VAE


def test_shards_are_added_up(box: Path, catalog: ModelCatalog) -> None:
    path = folder(box)
    unet = path / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    for shard in (1, 2):
        name = f"diffusion_pytorch_model-0000{shard}-of-00002.safetensors"
        write(unet / name, {f"x{shard}": (20,)})
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    others = len(list(path.glob("*/*.safetensors"))) - 2

    assert catalog.find("model").expected_bytes(1) == 40 + others


def test_a_file_counts_no_averaged_weights(box: Path, catalog: ModelCatalog) -> None:
    shapes = tensors_of("sd1")
    write(box / "models" / "model.safetensors", {**shapes, "model_ema.x": (500,)})

    assert catalog.find("model").expected_bytes(2) == 2 * numbers(shapes)


def test_another_vae_is_counted_in_place_of_its_own(box: Path, catalog: ModelCatalog) -> None:
    path = folder(box, vae="better")
    write(box / "vae" / "better.safetensors", {"x": (30,)})
    others = len([file for file in path.glob("*/*.safetensors") if file.parent.name != "vae"])

    assert catalog.find("model").expected_bytes(1) == 30 + others


def test_a_file_with_another_vae_counts_both(box: Path, catalog: ModelCatalog) -> None:
    checkpoint(box, vae="better")
    write(box / "vae" / "better.safetensors", {"x": (30,)})

    assert catalog.find("model").expected_bytes(1) == numbers(tensors_of("sd1")) + 30
