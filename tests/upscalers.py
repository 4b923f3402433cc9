"""Tiny upscalers of random weights, as files."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from darkroom.engine.families import upscaling

Make = Callable[[], dict[str, torch.Tensor]]


def save(folder: Path, name: str, scale: int = 2, seed: int = 0) -> Path:
    """An ESRGAN with one block of eight channels, whose pictures are about what they were."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = esrgan(scale, seed)
    path = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return path


def esrgan(scale: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """The weights of one, made by the architecture itself."""
    upscaling.import_spandrel()
    from spandrel.architectures.ESRGAN import ESRGAN

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ESRGAN(num_filters=8, num_blocks=1, scale=scale)
    weights = network.state_dict()
    last = max(int(key.split(".")[1]) for key in weights)
    weights[f"model.{last}.bias"] += 0.5  # else most of it is black
    weights[f"model.{last}.weight"] *= 4
    return weights
