"""A LoRA file as low-rank updates of layers, whichever program saved it.

diffusers renames the layers, as the loader of each pipeline does. Strengths (alpha) are put into
the weights here, because on diffusers' way from the file to peft those of a UNet's attention layers
are lost where they differ between layers (`get_peft_kwargs` in 0.42 looks for them under names that
the UNet does not have), as they do in every LoCon with a `conv_alpha` of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.utils.state_dict_utils import (
    StateDictType,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from safetensors import SafetensorError
from safetensors.torch import load

from darkroom.catalog import loras, weight_files
from darkroom.engine.loading import DENOISERS

PARTS = (*DENOISERS, "text_encoder", "text_encoder_2")
FOREIGN_METADATA = "holds metadata that diffusers did not write"
# Files from before diffusers 0.17 hold the UNet's attention layers and do not say so.
_UNET_ALONE = ("down_blocks.", "mid_block.", "up_blocks.")


@dataclass(frozen=True)
class LowRank:
    """An update of one layer, ΔW = up · down, with its strength in `up`."""

    down: torch.Tensor  # (rank, in), or (rank, in, kernel, kernel) of a convolution
    up: torch.Tensor  # (out, rank), or (out, rank, 1, 1)

    @property
    def rank(self) -> int:
        return self.down.shape[0]


# Part of the pipeline → name of a layer in it → its update.
Updates = Mapping[str, Mapping[str, LowRank]]


def read(path: Path, pipeline: Any, parts: Mapping[str, Any]) -> Updates:
    """Read a LoRA from a safetensors file.

    Layers of text encoders are named as diffusers saves them, below `text_model.`.

    Args:
        pipeline: the class whose loader renames the layers.
        parts: its networks.

    Raises:
        ValueError: says why it is no LoRA, or a broken one.
    """
    try:
        metadata = weight_files.read_addon_header(path).metadata
        # Not mapped into memory: who writes over a mapped file ends this process.
        tensors = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot be read ({error})") from None
    layers = loras.group_by_layer(tensors)
    config = _configuration(metadata)
    weights: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        down, up = tensors[layer.down].float(), tensors[layer.up].float()
        if not (down.isfinite().all() and up.isfinite().all()):
            raise ValueError(f"holds numbers that are infinite or none at all, in {name}")
        alpha = None if layer.alpha is None else float(tensors[layer.alpha])
        prefix = "unet." if layer.down.startswith(_UNET_ALONE) else ""
        weights[prefix + layer.down] = down
        weights[prefix + layer.up] = up * _strength(config, name, down.shape[0], alpha)
        if layer.alpha is not None and "transformer" in parts:
            # Some converters ask for it, and some know by it what to convert. It says 1 now.
            weights[layer.alpha] = torch.tensor(float(down.shape[0]))
    try:
        renamed = _renamed(weights, pipeline, parts)
        updates = {part: _updates(renamed, f"{part}.") for part in PARTS}
        if not any(updates.values()):
            raise ValueError(next(iter(layers)))
        return updates
    except (KeyError, IndexError, AttributeError, AssertionError, ValueError) as error:
        # What diffusers' renaming raises on names that it cannot take apart.
        raise ValueError(f"names layers in a way that is not known ({error!s:.200})") from None


def _renamed(
    weights: dict[str, torch.Tensor], pipeline: Any, parts: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The weights by the name of their part, and by diffusers' of the layer in it.

    Raises:
        ValueError: layers would be left out.
        Exception: whatever diffusers raises.
    """
    renamed: dict[str, torch.Tensor]
    named = tuple(f"{part}." for part in PARTS)
    if "unet" in parts:  # its configuration says how many layers a block of the original naming has
        config = parts["unet"].config
        renamed, _ = StableDiffusionLoraLoaderMixin.lora_state_dict(weights, unet_config=config)
        strange = [name for name in renamed if not name.startswith(named)]
        if strange:
            raise ValueError(strange[0])
        return renamed
    # Some converters put this before each name, also where it is already.
    weights = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    foreign = [name for name in weights if ".lora_down." in name]
    renamed = pipeline.lora_state_dict(weights)
    if renamed is not weights:
        # FLUX's converters take what they know out of the dictionary that they are given.
        left = [name for name in foreign if name in weights]
        if left and len(left) < len(foreign):
            raise ValueError(", ".join(left))
    return {
        name if name.startswith(named) else f"transformer.{name}": tensor
        for name, tensor in renamed.items()
        if not name.endswith(".alpha")
    }


def _updates(weights: Mapping[str, torch.Tensor], prefix: str) -> dict[str, LowRank]:
    """The layers of one part, by their names in it."""
    mine = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    if prefix.startswith("text_encoder"):
        # diffusers' own guess of the naming fails on files that hold a text projection.
        mine = convert_state_dict_to_peft(mine, original_type=StateDictType.DIFFUSERS_OLD)
    mine = convert_unet_state_dict_to_peft(mine)
    names = [key.removesuffix(".lora_A.weight") for key in mine if key.endswith(".lora_A.weight")]
    if 2 * len(names) != len(mine):
        raise ValueError(", ".join(sorted(mine)))
    return {
        name: LowRank(mine[f"{name}.lora_A.weight"], mine[f"{name}.lora_B.weight"])
        for name in names
    }


def _configuration(metadata: Mapping[str, str]) -> dict[str, Any]:
    """peft's configuration, as diffusers saves it in a file's metadata; may be empty.

    Raises:
        ValueError: diffusers did not write it, or it asks for more than LoRA.
    """
    try:
        config: dict[str, Any] = json.loads(metadata.get(LORA_ADAPTER_METADATA_KEY, "{}"))
        if any(config.get(f"{part}.use_dora") for part in PARTS):
            raise ValueError("is a DoRA; only LoRA and LoCon can be used")
    except (json.JSONDecodeError, AttributeError):
        raise ValueError(FOREIGN_METADATA) from None
    return config


def _strength(config: Mapping[str, Any], layer: str, rank: int, alpha: float | None) -> float:
    """What to multiply the update of a layer with: alpha / rank.

    Alpha comes from the file's tensors or from the configuration. Only numbers are taken from
    that: it could ask for an initialisation that changes the base model's weights.
    """
    part, _, name = layer.partition(".")
    if alpha is None:
        alpha = config.get(f"{part}.lora_alpha")
        for key, value in (config.get(f"{part}.alpha_pattern") or {}).items():
            plain = key.removeprefix("^")  # diffusers' mark for "from the beginning"
            if name == plain or (plain == key and name.endswith(f".{key}")):
                alpha = value
        if alpha is None:
            return 1.0
        if not isinstance(alpha, int | float):
            raise ValueError(FOREIGN_METADATA)
    return alpha / rank**0.5 if config.get(f"{part}.use_rslora") else alpha / rank
