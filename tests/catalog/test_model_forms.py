"""Every family in each form in which its models come: drawn through the API, beside its folder.

The table in docs/models.md is made of what is tested here.
"""

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from darkroom.catalog.folders import DENOISERS
from tests.engine import originals, tiny, tiny_families
from tests.serving import RunningServer, running
from tests.test_docs import ROOT
from tests.waiting import PATIENCE_S

Form = Callable[[Path, Path, str], object]
FP8_MOST = 448.0  # the largest number of float8_e4m3fn


# --- forms: each writes a folder's model into a data folder, under a name ------------------


def folder(source: Path, box: Path, name: str) -> Path:
    return shutil.copytree(source, box / "models" / name)


def shards(source: Path, box: Path, name: str) -> None:
    part = _denoiser(folder(source, box, name))
    network = _network(part)
    (weights,) = part.glob("*.safetensors")
    weights.unlink()
    network.save_pretrained(part, max_shard_size="50KB")
    assert len(list(part.glob("*.safetensors"))) > 1


def variant(source: Path, box: Path, name: str) -> None:
    for path in folder(source, box, name).rglob("*.safetensors"):
        halves = {
            key: value.half() if value.is_floating_point() else value
            for key, value in load_file(path).items()
        }
        save_file(halves, path.with_suffix(".fp16.safetensors"), {"format": "pt"})
        path.unlink()


def fp8(source: Path, box: Path, name: str) -> None:
    path = originals.split(source, box, name)
    weights = load_file(path)
    eight = {key: value.to(torch.float8_e4m3fn) for key, value in weights.items() if _packs(value)}
    save_file(weights | eight, path)


def fp8_scaled(source: Path, box: Path, name: str) -> None:
    scale(originals.split(source, box, name))


def whole_scaled(source: Path, box: Path, name: str) -> None:
    scale(originals.whole(source, box, name), originals.TRANSFORMER)


def scale(path: Path, prefix: str = "") -> None:
    """Multiply the weights below a prefix so that they fill fp8's range, and keep by what."""
    weights = load_file(path) | {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
    for key, value in list(weights.items()):
        if _packs(value) and key.startswith(prefix):
            factor = value.abs().max() / FP8_MOST
            weights[key] = (value / factor).to(torch.float8_e4m3fn)
            weights[key.removesuffix("weight") + "scale_weight"] = factor.reshape(1)
    save_file(weights, path)


def bits(source: Path, box: Path, name: str, **how: Any) -> None:
    part = _denoiser(folder(source, box, name))
    config = diffusers.BitsAndBytesConfig(**how)
    network = _network(part, quantization_config=config, dtype=torch.float32)
    for weights in part.glob("*.safetensors"):
        weights.unlink()
    network.save_pretrained(part)


def nf4(source: Path, box: Path, name: str) -> None:
    bits(source, box, name, load_in_4bit=True, bnb_4bit_quant_type="nf4")


def int8(source: Path, box: Path, name: str) -> None:
    bits(source, box, name, load_in_8bit=True)


def on_load(source: Path, box: Path, name: str, how: str) -> None:
    notes = folder(source, box, name) / "darkroom.json"
    notes.write_text(json.dumps(json.loads(notes.read_text()) | {"quantize": how}))


def to_int8(source: Path, box: Path, name: str) -> None:
    on_load(source, box, name, "int8")


def to_fp8(source: Path, box: Path, name: str) -> None:
    on_load(source, box, name, "fp8")


def _packs(value: torch.Tensor) -> bool:
    return value.ndim == 2 and value.is_floating_point() and len(value) > 1


def _denoiser(model: Path) -> Path:
    return next(model / name for name in DENOISERS if (model / name).is_dir())


def _network(part: Path, **options: Any) -> Any:
    cls = getattr(diffusers, json.loads((part / "config.json").read_text())["_class_name"])
    return cls.from_pretrained(part, **options)


# Form → what makes it, and how far its picture may be from the folder's: the mean difference of
# the 256 levels. Untrained networks magnify what is rounded away.
FORMS: dict[str, tuple[Form, float]] = {
    "folder": (folder, 0),
    "folder in shards": (shards, 0),
    "folder in fp16": (variant, 2),
    "single file": (originals.whole, 0),
    "single file in scaled fp8": (whole_scaled, 40),
    "split files": (originals.split, 0),
    "split files in fp8": (fp8, 40),
    "split files in scaled fp8": (fp8_scaled, 40),
    "GGUF": (originals.gguf, 20),
    "folder in nf4": (nf4, 60),
    "folder in int8": (int8, 60),
    "folder, `quantize: int8`": (to_int8, 20),
    "folder, `quantize: fp8`": (to_fp8, 40),
}
FOLDERS = tuple(form for form in FORMS if form.startswith("folder"))
# Of every model here: drawn and measured small, as a megapixel takes most of the time.
NOTES = {"defaults": {"width": 64, "height": 64}, "limits": {"min_side": 64}}
UNETS = tuple(form for form in FORMS if "quantize" not in form)
# Form → the library that it needs. bitsandbytes packs and unpacks on a GPU only.
NEEDS = {
    "folder in nf4": "bitsandbytes",
    "folder in int8": "bitsandbytes",
    "folder, `quantize: int8`": "torchao",
    "folder, `quantize: fp8`": "torchao",
}
# What a form needs → what the table says of it.
WHERE = {None: "yes", "torchao": "with torchao", "bitsandbytes": "on a GPU"}
# Family → a tiny model of it, and the forms in which its models come.
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "sd": ("sd1", UNETS),
    "sdxl": ("sdxl", UNETS),
    "sd3": ("sd3", tuple(FORMS)),
    "flux": ("flux_dev", tuple(FORMS)),
    "flux-kontext": ("flux_kontext", tuple(FORMS)),
    "flux2-klein": ("flux2_klein", tuple(FORMS)),
    "flux2": ("flux2_dev", FOLDERS),
    "z-image": ("z_image", tuple(FORMS)),
    "qwen-image": ("qwen_image", tuple(FORMS)),
    "Chroma": ("chroma", tuple(FORMS)),
}
CASES = [(family, form) for family, (_, forms) in FAMILIES.items() for form in forms[1:]]
DAILY = [("flux", "split files"), ("z-image", "GGUF")]


def table() -> str:
    """Which forms each family's models may have, and how far pictures may be off."""
    names = " | ".join(f"`{name}`" for name in FAMILIES)
    lines = [f"| form | off by | {names} |", "|---" * (len(FAMILIES) + 2) + "|"]
    for form, (_, distance) in FORMS.items():
        tried = WHERE[NEEDS.get(form)]
        cells = " | ".join(tried if form in forms else "" for _, forms in FAMILIES.values())
        off = f"{distance} of 255" if distance else "nothing"
        lines.append(f"| {form} | {off} | {cells} |")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("forms")
    (made / "models").mkdir()
    return made


@pytest.fixture(scope="module")
def server(box: Path) -> Iterator[RunningServer]:
    with running(box) as started:
        yield started


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's tiny model as a folder, built once."""
    root = tmp_path_factory.mktemp("built")

    def build(family: str) -> Path:
        name = FAMILIES[family][0]
        model = root / name
        if not model.is_dir():
            (tiny_families.BUILDERS | tiny.BUILDERS)[name](model)
            if family == "qwen-image":
                originals.wan_vae().save_pretrained(model / "vae")
            (model / "darkroom.json").write_text(json.dumps(NOTES))
        return model

    return build


def picture(server: RunningServer, model: str, **fields: Any) -> Any:
    """As numbers from 0 to 255."""
    asked = {"prompt": "a red fox", "seed": 7, "num_inference_steps": 2, "model": model, **fields}
    sizes = {"width": 64, "height": 64, "exact": True}
    answer = server.http.post(
        "/txt2img", json=asked | sizes, headers={"accept": "image/png"}, timeout=4 * PATIENCE_S
    )
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as opened:
        return np.asarray(opened, dtype=np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "form"),
    [
        pytest.param(*case, marks=() if case in DAILY else pytest.mark.slow, id="-".join(case))
        for case in CASES
    ],
)
def test_a_model_draws_what_its_folder_draws(
    server: RunningServer,
    box: Path,
    source: Callable[[str], Path],
    family: str,
    form: str,
) -> None:
    needs = NEEDS.get(form)
    if needs is not None:
        pytest.importorskip(needs)
    if needs == "bitsandbytes" and not torch.cuda.is_available():
        pytest.skip("it needs a GPU")
    original = FAMILIES[family][0]
    if not (box / "models" / original).is_dir():
        folder(source(family), box, original)
    make, distance = FORMS[form]
    name = f"{original}-{re.sub('[^a-z0-9]+', '-', form.lower()).strip('-')}"
    make(source(family), box, name)

    off = float(np.abs(picture(server, name) - picture(server, original)).mean())

    print("OFF", family, form, off)
    assert off <= distance


@pytest.mark.slow
def test_a_model_in_q4_k_draws_about_what_its_folder_draws(
    server: RunningServer, box: Path, tmp_path: Path
) -> None:
    wide = tiny_families.flux_wide(tmp_path / "wide")
    (wide / "darkroom.json").write_text(json.dumps(NOTES))
    folder(wide, box, "wide")
    packed = originals.gguf(wide, box, "wide-q4-k", "Q4_K")
    assert packed.stat().st_size < 0.4 * size(wide / "transformer")

    off = float(np.abs(picture(server, "wide-q4-k") - picture(server, "wide")).mean())

    print("OFF", "wide q4", off)
    assert 0 < off <= 40


@pytest.mark.slow
@pytest.mark.parametrize("form", ["GGUF", "folder, `quantize: int8`"])
def test_a_lora_does_to_quantised_weights_what_it_does_to_the_folders(
    server: RunningServer, box: Path, source: Callable[[str], Path], form: str
) -> None:
    pytest.importorskip(NEEDS.get(form, "gguf"))
    make = FORMS[form][0]
    name = f"lora-{form[:4].lower()}"
    make(source("flux"), box, name)
    folder(source("flux"), box, f"{name}-plain")
    torch.manual_seed(1)
    layer = "transformer.transformer_blocks.0.attn.to_q"
    halves = {f"{layer}.lora_{half}.weight": torch.randn(4, 32) for half in "AB"}
    halves[f"{layer}.lora_B.weight"] = halves[f"{layer}.lora_B.weight"].T.contiguous()
    (box / "loras").mkdir(exist_ok=True)
    save_file(halves, box / "loras" / f"{name}.safetensors")

    loras = [{"name": name}]
    changed, wanted = (picture(server, each, loras=loras) for each in (name, f"{name}-plain"))

    assert np.abs(changed - picture(server, name)).mean() > 1
    assert np.abs(changed - wanted).mean() < np.abs(changed - picture(server, name)).mean()


def size(part: Path) -> int:
    return sum(file.stat().st_size for file in part.glob("*.safetensors"))


def test_the_table_in_the_docs_is_what_is_tested_here() -> None:
    assert table() in (ROOT / "docs" / "models.md").read_text()
