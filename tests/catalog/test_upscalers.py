"""What an upscaler is, told from its header as spandrel tells it from its weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from darkroom.catalog.upscalers import UnknownUpscalerError, UpscalerCatalog
from darkroom.engine.families import upscaling
from tests import upscalers

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


def test_an_empty_folder_or_none_has_no_upscalers(tmp_path: Path) -> None:
    assert UpscalerCatalog(tmp_path).entries() == ()
    assert UpscalerCatalog(tmp_path / "none").entries() == ()


def test_without_the_library_each_is_named_with_that_as_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upscalers.save(tmp_path, "tiny")
    monkeypatch.setattr("darkroom.catalog.upscalers.LIBRARY", "a_library_that_is_not_here")

    catalog = UpscalerCatalog(tmp_path)

    assert catalog.entries() == ()
    assert [(file.file, "spandrel" in file.reason) for file in catalog.broken()] == [
        ("tiny.safetensors", True)
    ]
