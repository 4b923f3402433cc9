"""What an upscaler is, told from its header as spandrel tells it from its weights."""

import io
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops, ImageStat
from safetensors.torch import save_file

from darkroom.catalog.upscalers import MAX_PIXELS, UnknownUpscalerError, UpscalerCatalog
from darkroom.engine.families import upscaling
from tests import upscalers
from training.data import HELD_OUT, PACK

Weights = dict[str, torch.Tensor]
CONVOLUTIONS = ((8, 32), (40, 32), (72, 32), (104, 32), (136, 8))  # of a dense block


def real_esrgan(*, folded: int = 1, up: str = "conv_up", body: str = "body.0.rdb") -> Weights:
    """Zeros by the names of Real-ESRGAN, or of BSRGAN, with two doublings."""
    old = up == "upconv"
    shapes = {
        "conv_first": (8, 3 * folded**2),
        "trunk_conv" if old else "conv_body": (8, 8),
        f"{up}1": (8, 8),
        f"{up}2": (8, 8),
        "HRconv" if old else "conv_hr": (8, 8),
        "conv_last": (3, 8),
    }
    for block in (1, 2, 3):
        for number, (inputs, outputs) in enumerate(CONVOLUTIONS, 1):
            shapes[f"{body}{block}.conv{number}"] = (outputs, inputs)
    weights = {f"{name}.weight": torch.zeros(*shape, 3, 3) for name, shape in shapes.items()}
    return weights | {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}


def compact(scale: int) -> Weights:
    """Zeros by the names of Real-ESRGAN's small networks."""
    convolutions = {0: (8, 3), 2: (8, 8), 4: (3 * scale**2, 8)}
    weights = {
        f"body.{place}.weight": torch.zeros(*shape, 3, 3) for place, shape in convolutions.items()
    }
    weights |= {f"body.{place}.bias": torch.zeros(s[0]) for place, s in convolutions.items()}
    return weights | {f"body.{place}.weight": torch.zeros(8) for place in (1, 3)}


def names(catalog: UpscalerCatalog) -> list[str]:
    return [entry.info.name for entry in catalog.entries()]


FILES = {
    "esrgan-x2": (lambda: upscalers.esrgan(2), "ESRGAN", 2),
    "esrgan-x8": (lambda: upscalers.esrgan(8), "ESRGAN", 8),
    "real-x4": (real_esrgan, "ESRGAN", 4),
    "real-x2": (lambda: real_esrgan(folded=2), "ESRGAN", 2),
    "bsrgan-x4": (lambda: real_esrgan(up="upconv", body="RRDB_trunk.0.RDB"), "ESRGAN", 4),
    "compact-x4": (lambda: compact(4), "Compact", 4),
}


@pytest.mark.parametrize("name", FILES)
def test_it_is_what_spandrel_says(name: str, tmp_path: Path) -> None:
    make, architecture, scale = FILES[name]
    weights = make()
    save_file(weights, tmp_path / f"{name}.safetensors")

    info = UpscalerCatalog(tmp_path).find(name).info

    network = upscaling.build(weights)
    assert (info.architecture, info.scale) == (architecture, scale)
    assert info.scale == network.scale
    assert network(torch.rand(1, 3, 8, 6)).shape == (1, 3, 8 * scale, 6 * scale)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: real_esrgan(folded=4), "does not make pictures larger"),
        (lambda: compact(1), "does not make pictures larger"),
        (lambda: {"body.0.weight": torch.zeros(8, 4, 3, 3)}, "red, green and blue"),
        (lambda: real_esrgan() | {"conv_first.weight": torch.zeros(8)}, "no convolution"),
        (lambda: upscalers.esrgan(2) | {"model.0.weight": torch.zeros(2, 1)}, "no convolution"),
        (lambda: {"unet.weight": torch.zeros(1)}, "no upscaler of the ESRGAN family"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_reason(
    make: upscalers.Make, reason: str, tmp_path: Path
) -> None:
    save_file(make(), tmp_path / "odd.safetensors")
    catalog = UpscalerCatalog(tmp_path)

    (broken,) = catalog.broken()
    assert broken.file == "odd.safetensors"
    assert reason in broken.reason
    with pytest.raises(UnknownUpscalerError, match=r"odd\.safetensors"):
        catalog.find("odd")


def test_an_empty_folder_or_none_has_those_of_the_package_alone(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert names(UpscalerCatalog(folder)) == ["tintype-x2", "tintype-x4"]


def test_without_the_library_each_is_named_with_that_as_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upscalers.save(tmp_path, "tiny")
    monkeypatch.setattr("darkroom.catalog.upscalers.LIBRARY", "a_library_that_is_not_here")

    catalog = UpscalerCatalog(tmp_path)

    assert catalog.entries() == ()
    assert [(file.file, "spandrel" in file.reason) for file in catalog.broken()] == [
        ("tiny.safetensors", True),
        ("tintype-x2.safetensors", True),
        ("tintype-x4.safetensors", True),
    ]
    with pytest.raises(UnknownUpscalerError, match="pip install --no-deps spandrel"):
        catalog.find_for(2, 100)


@pytest.mark.parametrize("scale", [2, 4])
def test_those_of_the_package_are_small_and_nearer_to_the_picture_than_lanczos(
    tmp_path: Path, scale: int
) -> None:
    """A picture that they were not trained on, made smaller and larger again."""
    entry = UpscalerCatalog(tmp_path).find(f"tintype-x{scale}")
    with zipfile.ZipFile(PACK) as pack:
        drawn = Image.open(io.BytesIO(pack.read(f"{HELD_OUT}00.webp"))).convert("RGBA")
    large = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    small = large.reduce(scale)

    made = upscaling.load(entry, torch.device("cpu"), torch.float32).enlarge(small)

    assert entry.path.stat().st_size <= 2_500_000
    assert made.size == large.size
    lanczos = small.resize(large.size, Image.Resampling.LANCZOS)
    assert error(made, large) < 0.8 * error(lanczos, large)


def error(one: Image.Image, other: Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).rms)


def test_a_file_of_the_same_name_replaces_an_upscaler_of_the_package(tmp_path: Path) -> None:
    upscalers.save(tmp_path, "tintype-x2", scale=4)
    (tmp_path / "tintype-x4.safetensors").write_bytes(b"<!doctype html>")

    entries, broken = UpscalerCatalog(tmp_path).read()

    assert [(entry.info.name, entry.info.scale) for entry in entries] == [("tintype-x2", 4)]
    assert [file.file for file in broken] == ["tintype-x4.safetensors"]


def test_where_none_is_named_the_owners_smallest_that_suffices_is_taken(tmp_path: Path) -> None:
    catalog = UpscalerCatalog(tmp_path)

    def taken(scale: float, pixels: int = 100) -> str:
        return catalog.find_for(scale, pixels).info.name

    assert [taken(1.5), taken(2), taken(2.5), taken(4)] == [
        *("tintype-x2", "tintype-x2", "tintype-x4", "tintype-x4")
    ]
    upscalers.save(tmp_path, "zebra", scale=4)
    assert [taken(2), taken(4)] == ["zebra", "zebra"]
    upscalers.save(tmp_path, "yak", scale=2)
    assert [taken(2), taken(4)] == ["yak", "zebra"]
    (tmp_path / "yak.safetensors").unlink()
    # It takes a sixteenth of what may be made; that of the package, a fourth.
    assert taken(2, MAX_PIXELS // 4) == "tintype-x2"
    assert taken(4, MAX_PIXELS) == "zebra"  # whose limit the caller is told
    with pytest.raises(UnknownUpscalerError, match=r"5 times larger \(see GET /upscalers\)"):
        taken(5)
