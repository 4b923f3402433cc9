"""How large a model will be in memory: the numbers of its parts that are read."""

from pathlib import Path

from darkroom.catalog import checkpoints
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


def test_a_folder_counts_the_files_that_are_read(box: Path, catalog: ModelCatalog) -> None:
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

    assert catalog.find("model").numbers() == {"unet": 100, "vae": 100, "text_encoder": 7}


def test_a_variant_is_counted_where_it_is_read(box: Path, catalog: ModelCatalog) -> None:
    path = folder(box, kind="sdxl")
    for file in path.glob("*/*.safetensors"):
        write(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")), {"x": (5,)})
        file.unlink()

    parts = ("unet", "vae", "text_encoder", "text_encoder_2")
    assert catalog.find("model").numbers() == dict.fromkeys(parts, 5)


def test_shards_are_added_up(box: Path, catalog: ModelCatalog) -> None:
    path = folder(box)
    unet = path / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    for shard in (1, 2):
        name = f"diffusion_pytorch_model-0000{shard}-of-00002.safetensors"
        write(unet / name, {f"x{shard}": (20,)})
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    others = len(list(path.glob("*/*.safetensors"))) - 2

    assert sum(catalog.find("model").numbers().values()) == 40 + others


def test_a_file_counts_no_averaged_weights(box: Path, catalog: ModelCatalog) -> None:
    shapes = tensors_of("sd1")
    write(box / "models" / "model.safetensors", {**shapes, "model_ema.x": (500,)})

    found = catalog.find("model").numbers()
    assert sum(found.values()) == numbers(shapes)
    assert found["unet"] == numbers({checkpoints.FIRST_LAYER: shapes[checkpoints.FIRST_LAYER]})
    assert found["vae"] == 1


def test_another_vae_is_counted_in_place_of_its_own(box: Path, catalog: ModelCatalog) -> None:
    path = folder(box, vae="better")
    write(box / "vae" / "better.safetensors", {"x": (30,)})
    others = len([file for file in path.glob("*/*.safetensors") if file.parent.name != "vae"])

    assert sum(catalog.find("model").numbers().values()) == 30 + others


def test_a_file_with_another_vae_counts_both(box: Path, catalog: ModelCatalog) -> None:
    checkpoint(box, vae="better")
    write(box / "vae" / "better.safetensors", {"x": (30,)})

    assert sum(catalog.find("model").numbers().values()) == numbers(tensors_of("sd1")) + 30
