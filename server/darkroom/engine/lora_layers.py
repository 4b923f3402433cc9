"""Putting a LoRA in front of a model's layers, by peft, and taking it off again."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer

from darkroom.engine.lora_file import LowRank, Updates


def fit(parts: Mapping[str, torch.nn.Module], updates: Updates) -> dict[str, dict[str, LowRank]]:
    """The updates by the models' own names of their layers, for each part; changes nothing.

    transformers 5 took the level `text_model.` out of CLIPTextModel, and left it in
    CLIPTextModelWithProjection; files have it for both.

    Raises:
        ValueError: a part or a layer is not there, or has another shape.
    """
    for part, layers in updates.items():
        if layers and part not in parts:
            raise ValueError(f"is for another model: this one has no {part}")
    return {part: _fit(model, updates[part]) for part, model in parts.items()}


def _fit(model: torch.nn.Module, updates: Mapping[str, LowRank]) -> dict[str, LowRank]:
    modules = dict(model.named_modules())
    fitted = {}
    for name, update in updates.items():
        known = name if name in modules else name.removeprefix("text_model.")
        module = _base(modules[known]) if known in modules else None
        if not isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            raise ValueError(f"is for another model: this one has no layer {name}")
        have = (tuple(update.up.shape), tuple(update.down.shape))
        want = _shapes(module, update.rank)
        if have != want:
            raise ValueError(
                f"is for another model: its {name} is {have[0]}·{have[1]}, "
                f"but this model's takes {want[0]}·{want[1]}"
            )
        fitted[known] = update
    return fitted


def _shapes(module: torch.nn.Linear | torch.nn.Conv2d, rank: int) -> tuple[Any, Any]:
    """Shapes of up and down, without the layer's weight, which may be packed."""
    if isinstance(module, torch.nn.Linear):
        return (module.out_features, rank), (rank, module.in_features)
    inputs = module.in_channels // module.groups
    return (module.out_channels, rank, 1, 1), (rank, inputs, *module.kernel_size)


def size_bytes(model: torch.nn.Module, layers: Mapping[str, LowRank]) -> int:
    """What updates take up in the model's dtype."""
    numbers = sum(layer.down.numel() + layer.up.numel() for layer in layers.values())
    return numbers * next(model.parameters()).element_size()


def put(model: torch.nn.Module, key: str, layers: Mapping[str, LowRank]) -> None:
    """Put fitted updates in front of base layers, on their device and in their dtype.

    They are active afterwards. `key` is peft's name of them.
    """
    if not layers:
        return
    by_rank: dict[int, list[str]] = {}
    for name, layer in layers.items():
        by_rank.setdefault(layer.rank, []).append(name)
    # A pattern a rank instead of one a layer: peft tries each pattern on each layer.
    ranks = {f"^{_exactly(names)}": rank for rank, names in by_rank.items()}
    config = LoraConfig(
        target_modules=_exactly(layers),
        rank_pattern=ranks,
        alpha_pattern=ranks,  # alpha = rank: strengths are within the weights
        init_lora_weights=False,
        inference_mode=True,
    )
    weights = {}
    for name, layer in layers.items():
        weights[f"{name}.lora_A.weight"] = layer.down
        weights[f"{name}.lora_B.weight"] = layer.up
    try:
        with _plain_layers(model, layers):
            inject_adapter_in_model(config, model, key, low_cpu_mem_usage=True, state_dict=weights)
        set_peft_model_state_dict(model, weights, key, low_cpu_mem_usage=True)
    finally:
        # The layers know all they need, and peft would warn of it when the next LoRA comes.
        if hasattr(model, "peft_config"):
            del model.peft_config


def take_off(model: torch.nn.Module, key: str) -> None:
    """Undo `put`, also an unfinished one. A layer without LoRAs becomes the base layer again."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.delete_adapter(key)
            if not module.r:
                model.set_submodule(name, _base(module))


def _exactly(names: Iterable[str]) -> str:
    """A regular expression that matches these names whole."""
    return f"(?:{'|'.join(re.escape(name) for name in names)})"


# --- layers that hide their weight ---------------------------------------------------------


@contextmanager
def _plain_layers(model: torch.nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Let peft see plain layers where there are subclasses that hide their weight.

    It makes a convolution's own layers of the base layer's class, with the arguments of
    `nn.Conv2d`, and counts the weight's dimensions (`_ConvNd` in peft/tuners/lora/layer.py).
    """
    hidden = {}
    for name in names:
        base = _base(model.get_submodule(name))
        if type(base) not in (torch.nn.Linear, torch.nn.Conv2d):
            hidden[name] = base
            _set_base(model, name, _plain(base))
    try:
        yield
    finally:
        for name, base in hidden.items():
            _set_base(model, name, base)


def _plain(base: Any) -> torch.nn.Module:
    """A layer of the same geometry that takes no memory."""
    if isinstance(base, torch.nn.Linear):
        return torch.nn.Linear(base.in_features, base.out_features, device="meta")
    geometry: dict[str, Any] = {
        name: getattr(base, name) for name in ("kernel_size", "stride", "padding", "groups")
    }
    return torch.nn.Conv2d(base.in_channels, base.out_channels, **geometry, device="meta")


def _base(module: Any) -> Any:
    """The layer behind peft's, if one of peft's it is."""
    return module.get_base_layer() if isinstance(module, LoraLayer) else module


def _set_base(model: torch.nn.Module, name: str, base: torch.nn.Module) -> None:
    module: Any = model.get_submodule(name)
    if isinstance(module, LoraLayer):
        module.base_layer = base
    else:
        model.set_submodule(name, base)
