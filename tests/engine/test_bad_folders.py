"""Folders in which something is wrong: each is named with the reason, and others go on.

For a tiny model of every family with calls that are shared; every day for two of them.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from darkroom.catalog.families import FAMILIES, WHOLE
from darkroom.catalog.models import BrokenModelError, ModelCatalog
from darkroom.engine.base import EngineJob, Failed
from darkroom.engine.engine import DiffusersEngine
from darkroom.requests import Task
from tests.effort import paired
from tests.engine import tiny, tiny_families
from tests.engine.conftest import make_engine, request, run

BUILDERS = tiny.BUILDERS | tiny_families.BUILDERS
# Family → a tiny model of it.
MODELS = {"sd": "sd1", "sdxl": "sdxl"} | {
    family: name for name, family in tiny_families.FAMILIES.items() if family != WHOLE
}
DAILY = ("sd", "z-image")
EACH = [pytest.param(f, marks=() if f in DAILY else pytest.mark.slow) for f in MODELS]
# SDXL without its first one could be a refiner, but for its width.
LACKS_ENCODER = "part text_encoder is missing|has no text encoder|fit together: text_encoder_2"
ROWS = {row.name: row for row in FAMILIES.values()}


def test_every_family_is_here() -> None:
    assert MODELS.keys() == ROWS.keys() - {WHOLE}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with models, whole and damaged."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def copied(box: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A copy of a family's model under a name."""
    built = tmp_path_factory.mktemp("built")

    def copy(family: str, name: str) -> Path:
        kind = MODELS[family]
        if not (built / kind).exists():
            tiny.small_by_default(BUILDERS[kind](built / kind))
        return shutil.copytree(built / kind, box / "models" / name)

    return copy


@pytest.fixture(scope="module")
def engine(box: Path, copied: Callable[[str, str], Path]) -> DiffusersEngine:
    copied("sd", "good")
    return make_engine(box)


@pytest.fixture(autouse=True)
def _small(small_references: None) -> None:
    """References are small."""


def draw(engine: DiffusersEngine, model: str, family: str, task: Task) -> Failed | None:
    """Ask for a small picture; returns how it failed, if it did."""
    scheduler = "euler" if family in ("sd", "sdxl") else "native"
    size = {"width": tiny.SIZE, "height": tiny.SIZE, "num_inference_steps": 2}
    asked = request(task, model=model, scheduler=scheduler, **size)
    grey, white = (Image.new(mode, (tiny.SIZE,) * 2, 200) for mode in ("RGB", "L"))
    events = run(engine, EngineJob("job", asked, grey, white, references=(grey,)))
    return next((event for event in events if isinstance(event, Failed)), None)


def assert_named(engine: DiffusersEngine, box: Path, model: str, family: str, words: str) -> None:
    """Its jobs fail with the reason, it is listed as broken, and other models draw."""
    task = ModelCatalog(box / "models", "tintype").find(model).info.tasks[0]

    failed = draw(engine, model, family, task)

    assert failed is not None
    assert failed.kind == "model"
    assert re.search(words, failed.detail)
    assert str(box) not in failed.detail
    assert re.search(words, engine.broken()[model])
    assert draw(engine, "good", "sd", Task.TXT2IMG) is None


def weights_of(part: Path) -> Path:
    return next(part.glob("*.safetensors"))


def denoiser_of(folder: Path) -> Path:
    return next(part for name in ("unet", "transformer") if (part := folder / name).is_dir())


@pytest.mark.parametrize("family", EACH)
def test_a_missing_part(
    engine: DiffusersEngine, box: Path, copied: Callable[[str, str], Path], family: str
) -> None:
    shutil.rmtree(copied(family, f"{family}-missing") / "text_encoder")

    with pytest.raises(BrokenModelError, match=LACKS_ENCODER):
        ModelCatalog(box / "models", "tintype").find(f"{family}-missing")
    failed = draw(engine, f"{family}-missing", family, ROWS[family].tasks[0])
    assert failed is not None
    assert re.search(LACKS_ENCODER, failed.detail)


@pytest.mark.parametrize("family", EACH)
def test_a_part_of_another_width(
    box: Path, copied: Callable[[str, str], Path], family: str
) -> None:
    """As its configuration says, so that it is known before it is loaded."""
    folder = copied(family, f"{family}-wide")
    part, key = next(
        (part, key)
        for width in ROWS[family].widths
        for part, key in width.parts
        if (folder / part / "config.json").is_file()
    )
    path = folder / part / "config.json"
    config = json.loads(path.read_text())
    (config if key in config else config["text_config"])[key] = 1234
    path.write_text(json.dumps(config))

    with pytest.raises(BrokenModelError, match=f"do not fit together: .*{part}.*1234"):
        ModelCatalog(box / "models", "tintype").find(f"{family}-wide")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "part"), paired(list(MODELS), ["denoiser", "text_encoder", "vae"])
)
def test_a_tensor_of_another_shape(
    engine: DiffusersEngine,
    box: Path,
    copied: Callable[[str, str], Path],
    family: str,
    part: str,
) -> None:
    name = f"{family}-{part}-shape"
    folder = copied(family, name)
    path = weights_of(denoiser_of(folder) if part == "denoiser" else folder / part)
    tensors = load_file(path)
    widest = max(tensors, key=lambda key: (tensors[key].ndim, tensors[key].numel()))
    tensors[widest] = torch.cat([tensors[widest]] * 2)
    save_file(tensors, path, {"format": "pt"})

    assert_named(engine, box, name, family, "mismatch" if part == "text_encoder" else "shape")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "part"), paired(list(MODELS), ["text_encoder", "vae", "denoiser"])
)
def test_numbers_that_are_none(
    engine: DiffusersEngine,
    box: Path,
    copied: Callable[[str, str], Path],
    family: str,
    part: str,
) -> None:
    name = f"{family}-{part}-nan"
    folder = copied(family, name)
    path = weights_of(denoiser_of(folder) if part == "denoiser" else folder / part)
    network = {"denoiser": "(UNet|denoiser)", "text_encoder": "text encoder", "vae": "VAE"}[part]
    tensors = load_file(path)
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
    save_file(tensors, path, {"format": "pt"})

    assert_named(engine, box, name, family, f"the {network} gave numbers that are not finite")


@pytest.mark.parametrize("family", EACH)
def test_weights_of_another_dtype(
    engine: DiffusersEngine, box: Path, copied: Callable[[str, str], Path], family: str
) -> None:
    """Whole numbers are no weights, though diffusers takes them for such."""
    name = f"{family}-dtype"
    path = weights_of(denoiser_of(copied(family, name)))
    whole = {key: tensor.to(torch.int8) for key, tensor in load_file(path).items()}
    save_file(whole, path, {"format": "pt"})

    with pytest.raises(BrokenModelError, match=r"whole numbers \(.* is I8\)"):
        ModelCatalog(box / "models", "tintype").find(name)
    assert draw(engine, "good", "sd", Task.TXT2IMG) is None


@pytest.mark.parametrize("family", EACH)
def test_weights_of_another_precision_are_cast(
    engine: DiffusersEngine, box: Path, copied: Callable[[str, str], Path], family: str
) -> None:
    name = f"{family}-half"
    path = weights_of(denoiser_of(copied(family, name)))
    cast = {key: tensor.to(torch.float16) for key, tensor in load_file(path).items()}
    save_file(cast, path, {"format": "pt"})
    task = ModelCatalog(box / "models", "tintype").find(name).info.tasks[0]

    assert draw(engine, name, family, task) is None
