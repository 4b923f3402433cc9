"""A LoRA file as changes of layers, whichever program saved it.

diffusers renames the layers, as the loader of each pipeline does; so it does for changes of other
kinds than LoRA, for each of which a small LoRA stands meanwhile. Strengths (alpha) are put into
the weights here, because on diffusers' way from the file to peft those of a UNet's attention layers
are lost where they differ between layers (`get_peft_kwargs` in 0.42 looks for them under names that
the UNet does not have), as they do in every LoCon with a `conv_alpha` of its own.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.loaders.lora_pipeline import (
    FluxLoraLoaderMixin,
    StableDiffusionLoraLoaderMixin,
    ZImageLoraLoaderMixin,
)
from diffusers.utils.state_dict_utils import (
    StateDictType,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from safetensors import SafetensorError
from safetensors.torch import load

from darkroom.catalog import lora_tensors, weight_files
from darkroom.engine import change_reader
from darkroom.engine.loading import DENOISERS
from darkroom.engine.weight_changes import Change, LowRank

PARTS = (*DENOISERS, "text_encoder", "text_encoder_2")
FOREIGN_METADATA = "holds metadata that diffusers did not write"
# Files from before diffusers 0.17 hold the UNet's attention layers and do not say so.
_UNET_ALONE = ("down_blocks.", "mid_block.", "up_blocks.")


# Part of the pipeline → name of a layer in it → its change.
Updates = Mapping[str, Mapping[str, Change]]

# How names of layers begin, and the parts that they are in; `` is the network that denoises.
_PREFIXES = {
    "lora_unet_": "",
    "lora_transformer_": "",
    "lycoris_": "",
    "diffusion_model.": "",
    lora_tensors.PEFT: "",
    "unet.": "unet",
    "transformer.": "transformer",
    "lora_te2_": "text_encoder_2",
    "lora_te1_": "text_encoder",
    "lora_te_": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder.": "text_encoder",
}
# Names of the original code, which these loaders know as kohya writes them alone.
_ORIGINAL = "diffusion_model."
_KNOW_KOHYAS = (FluxLoraLoaderMixin, ZImageLoraLoaderMixin)
# Layers of the original code's UNet in which diffusers looks for no LoRA.
_NORMS = ((".in.layers.0.", ".norm1."), (".out.layers.0.", ".norm2."))
# In place of a change that diffusers cannot rename stands a LoRA of rank 1: the number of the
# change behind this one, and the numbers of its rows.
_MARK = 2**22


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
    layers = lora_tensors.group_by_layer(tensors)
    config = _configuration(metadata)
    weights: dict[str, torch.Tensor] = {}
    updates: dict[str, dict[str, Change]] = {part: {} for part in PARTS}
    marked: list[Change] = []
    names = {part: _names(model) for part, model in parts.items()}
    for name, layer in layers.items():
        held = {key: tensors[key].float() for key in layer.keys.values()}
        if not all(tensor.isfinite().all() for tensor in held.values()):
            raise ValueError(f"holds numbers that are infinite or none at all, in {name}")
        strength = 1.0
        if "down" in layer.keys:
            alpha = float(held[layer.keys["alpha"]]) if "alpha" in layer.keys else None
            strength = _strength(config, name, held[layer.keys["down"]].shape[0], alpha)
        change = change_reader.read(layer, held, strength)
        part, known = _place(name, names)
        # diffusers, which renames the rest, takes some of a network's own names for others.
        if known is not None and (not layer.low_rank or part in DENOISERS):
            updates[part][known] = change
            continue
        if layer.low_rank:
            assert isinstance(change, LowRank)
            if name.startswith(_ORIGINAL) and issubclass(pipeline, _KNOW_KOHYAS):
                key = f"lora_unet_{name.removeprefix(_ORIGINAL).replace('.', '_')}"
                weights[f"{key}.lora_down.weight"] = change.down
                weights[f"{key}.lora_up.weight"] = change.up
                weights[f"{key}.alpha"] = torch.tensor(float(change.rank))
                continue
            prefix = "unet." if layer.keys["down"].startswith(_UNET_ALONE) else ""
            weights[prefix + layer.keys["down"]] = change.down
            weights[prefix + layer.keys["up"]] = change.up
            if "alpha" in layer.keys and "transformer" in parts:
                # Some converters ask for it, and some know by it what to convert. It says 1 now.
                weights[layer.keys["alpha"]] = torch.tensor(float(change.rank))
            continue
        weights |= _stand_in(name, change, _MARK + len(marked))
        marked.append(change)
    if not weights:
        return updates
    try:
        renamed = _renamed(weights, pipeline, parts)
        for part in PARTS:
            for name, update in _updates(renamed, f"{part}.").items():
                updates[part][name] = _change(update, marked)
        if not any(updates.values()):
            raise ValueError(next(iter(layers)))
        return updates
    except (KeyError, IndexError, AttributeError, AssertionError, ValueError) as error:
        # What diffusers' renaming raises on names that it cannot take apart.
        raise ValueError(f"names layers in a way that is not known ({error!s:.200})") from None


def _names(model: Any) -> dict[str, str]:
    """The names of a model's layers by those with `_` for every dot, as kohya writes them."""
    return {name.replace(".", "_"): name for name, _ in model.named_modules()}


def _place(name: str, names: Mapping[str, Mapping[str, str]]) -> tuple[str, str | None]:
    """The part that a layer of a file is in, and its name there; None if it is not that."""
    denoiser = next(part for part in DENOISERS if part in names)
    for prefix, part in _PREFIXES.items():
        if name.startswith(prefix):
            plain = name.removeprefix(prefix).replace(".", "_")
            found = names.get(part or denoiser, {})
            return part or denoiser, found.get(plain, found.get(plain.removeprefix("text_model_")))
    return denoiser, names[denoiser].get(name.replace(".", "_"))


def _stand_in(name: str, change: Change, mark: int) -> dict[str, torch.Tensor]:
    """A LoRA of rank 1 that diffusers renames in place of a change."""
    made, _, *kernel = (*change.shape(), None)
    if made is None:
        raise ValueError(f"is for another model: this one has no layer {name}")
    ends = (1,) * (2 if len([size for size in kernel if size is not None]) > 1 else 0)
    down = torch.full((1, 1, *ends), float(mark))
    up = torch.arange(float(made)).reshape(-1, 1, *ends)
    if "." in name:
        return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    sides = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    return {**sides, f"{name}.alpha": torch.tensor(1.0)}


def _change(update: LowRank, marked: Sequence[Change]) -> Change:
    """The change that a LoRA stands for, or itself."""
    number = int(update.down.flatten()[0]) - _MARK
    if update.rank != 1 or not 0 <= number < len(marked):
        return update
    change, index = marked[number], update.up.flatten().long()
    whole = change.shape()[0]
    assert whole is not None
    return change if torch.equal(index, torch.arange(whole)) else change.rows(index)


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
        for theirs, ours in _NORMS:
            renamed = {key.replace(theirs, ours): tensor for key, tensor in renamed.items()}
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
        ValueError: diffusers did not write it.
    """
    try:
        config = json.loads(metadata.get(LORA_ADAPTER_METADATA_KEY, "{}"))
    except json.JSONDecodeError:
        config = None
    if not isinstance(config, dict):
        raise ValueError(FOREIGN_METADATA)
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
