"""A box with models of all sorts, whole and broken. Weights are a few zeros where none load."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkroom.catalog import checkpoints
from darkroom.catalog.listing import CONFIGS
from darkroom.catalog.models import ModelCatalog


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """An empty data folder."""
    for name in ("models", "vae", "configs"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def catalog(box: Path) -> ModelCatalog:
    return ModelCatalog(box / "models", "tintype")


def tensors_of(kind: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes that tell a kind of checkpoint: a carried configuration's name."""
    channels = 9 if kind.endswith("-inpaint") else 4
    shapes = {checkpoints.FIRST_LAYER: (2, channels, 3, 3), "first_stage_model.x": (1,)}
    match kind.split("-")[0], kind.split("-")[-1]:
        case "sd1", _:
            names = [checkpoints.CLIP_L]
        case "sd2", _:
            names = [checkpoints.CLIP_H]
        case "sdxl", "refiner":
            names = [checkpoints.REFINER_CLIP_G]
        case _:
            names = [checkpoints.SDXL_CLIP_L, checkpoints.SDXL_CLIP_G]
    return shapes | dict.fromkeys(names, (1, 1))


def write(path: Path, shapes: dict[str, tuple[int, ...]], **metadata: str) -> Path:
    """A safetensors file of zeros."""
    zeros = {name: np.zeros(shape, dtype=np.float16) for name, shape in shapes.items()}
    save_file(zeros, path, metadata or None)
    return path


def checkpoint(box: Path, name: str = "model", kind: str = "sd1", **notes: Any) -> Path:
    """A single file that looks like a checkpoint, with notes beside it."""
    path = write(box / "models" / f"{name}.safetensors", tensors_of(kind))
    if notes:
        path.with_suffix(".json").write_text(json.dumps(notes))
    return path


def folder(box: Path, name: str = "model", kind: str = "sd1", **notes: Any) -> Path:
    """A folder that looks like a model in the diffusers format."""
    path = shutil.copytree(CONFIGS / kind, box / "models" / name)
    for config in path.glob("*/config.json"):
        stem = "model" if config.parent.name.startswith("text") else "diffusion_pytorch_model"
        write(config.with_name(f"{stem}.safetensors"), {"x": (1,)})
    for tokenizer in path.glob("tokenizer*"):
        (tokenizer / "vocab.json").write_text("{}")
    if notes:
        (path / "darkroom.json").write_text(json.dumps(notes))
    return path


def edit(path: Path, **values: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


FLUX_VAE = {"block_out_channels": [1, 1, 1, 1], "latent_channels": 16}
QWEN_VAE = {"temperal_downsample": [False, True, True], "z_dim": 16}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def transformer_folder(
    box: Path,
    pipeline: str,
    name: str = "model",
    transformer: dict[str, Any] | None = None,
    vae: dict[str, Any] | None = None,
    scheduler: dict[str, Any] | None = None,
    encoders: dict[str, dict[str, Any]] | None = None,
    **index: Any,
) -> Path:
    """A folder of a transformer, as diffusers writes it, with weights of a few zeros."""
    path = box / "models" / name
    configs = {
        "transformer": {"patch_size": 1, **(transformer or {})},
        "vae": FLUX_VAE if vae is None else vae,
        **(encoders or {}),
    }
    classes = {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
    for part, config in configs.items():
        (path / part).mkdir(parents=True)
        (path / part / "config.json").write_text(json.dumps(config))
        stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
        write(path / part / f"{stem}.safetensors", {"x": (1,)})
        classes[part] = ["diffusers", "ModelMixin"]
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler or FLOW))
    about = {"_class_name": pipeline, **classes, **index}
    (path / "model_index.json").write_text(json.dumps(about))
    return path
