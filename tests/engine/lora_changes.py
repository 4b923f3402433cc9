"""Making LoRA files of every kind, with the changes of weights that they mean, computed plainly."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from darkroom.engine.lora_file import DENOISERS

RANK = 3
ALPHA = 2.0
STRENGTH = ALPHA / RANK

# The tensors of a layer, and the change of its weight or bias.
Tensors = dict[str, torch.Tensor]
Drawn = tuple[Tensors, torch.Tensor]


class Draw:
    """Random numbers for one layer after the other."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, size: float = 0.3) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator) * size


def _factors(count: int) -> int:
    """The larger of two numbers whose product it is."""
    return next(n for n in range(math.ceil(count**0.5), count + 1) if count % n == 0)


def lora(draw: Draw, weight: torch.Tensor) -> Drawn:
    out, columns = len(weight), weight[0].numel()
    down, up = draw(RANK, *weight.shape[1:]), draw(out, RANK, *(1,) * (weight.ndim - 2))
    delta = up.reshape(out, RANK) @ down.reshape(RANK, columns) * STRENGTH
    sides = {"lora_down.weight": down, "lora_up.weight": up}
    return {**sides, "alpha": torch.tensor(ALPHA)}, delta.reshape(weight.shape)


def tucker(draw: Draw, weight: torch.Tensor) -> Drawn:
    """A LoCon with a core; of a layer without a kernel it has none."""
    if weight.ndim == 2:
        return lora(draw, weight)
    out, read, *kernel = weight.shape
    down, mid, up = draw(RANK, read, 1, 1), draw(RANK, RANK, *kernel), draw(out, RANK, 1, 1)
    delta = torch.zeros(weight.shape)
    for one in range(RANK):
        for two in range(RANK):
            outer = up[:, one].reshape(-1, 1) * down[two].reshape(1, -1)
            delta += outer[..., None, None] * mid[one, two]
    tensors = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}
    return {**tensors, "alpha": torch.tensor(ALPHA)}, delta * STRENGTH


def loha(draw: Draw, weight: torch.Tensor) -> Drawn:
    out, columns = len(weight), weight[0].numel()
    sides = [draw(out, RANK), draw(RANK, columns), draw(out, RANK), draw(RANK, columns)]
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    delta = (sides[0] @ sides[1]) * (sides[2] @ sides[3]) * STRENGTH
    tensors = dict(zip(names, sides, strict=True))
    return {**tensors, "alpha": torch.tensor(ALPHA)}, delta.reshape(weight.shape)


def loha_tucker(draw: Draw, weight: torch.Tensor) -> Drawn:
    if weight.ndim == 2:
        return loha(draw, weight)
    out, read, *kernel = weight.shape
    tensors, product = {}, torch.ones(weight.shape)
    for side in ("1", "2"):
        core, first, second = draw(RANK, RANK, *kernel), draw(RANK, out), draw(RANK, read)
        tensors |= {f"hada_t{side}": core, f"hada_w{side}_a": first, f"hada_w{side}_b": second}
        made = torch.zeros(weight.shape)
        for one in range(RANK):
            for two in range(RANK):
                made += torch.outer(first[one], second[two])[..., None, None] * core[one, two]
        product = product * made
    return {**tensors, "alpha": torch.tensor(ALPHA)}, product * STRENGTH


def _kron(draw: Draw, weight: torch.Tensor, first: bool, second: bool) -> Drawn:
    """LoKr whose first and second matrix are products."""
    out, read, *kernel = weight.shape
    c, d = _factors(out), _factors(read)
    a, b = out // c, read // d
    tensors: Tensors = {}
    if first:
        tensors |= {"lokr_w1_a": draw(a, RANK), "lokr_w1_b": draw(RANK, b)}
        one = tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]
    else:
        one = tensors["lokr_w1"] = draw(a, b)
    if second:
        tensors |= {"lokr_w2_a": draw(c, RANK), "lokr_w2_b": draw(RANK, d * math.prod(kernel))}
        two = (tensors["lokr_w2_a"] @ tensors["lokr_w2_b"]).reshape(c, d, *kernel)
    else:
        two = tensors["lokr_w2"] = draw(c, d, *kernel)
    delta = torch.zeros(weight.shape)
    for i in range(a):
        for j in range(b):
            delta[i * c : (i + 1) * c, j * d : (j + 1) * d] = one[i, j] * two
    strength = STRENGTH if first or second else 1.0  # without a rank, alpha says nothing
    return {**tensors, "alpha": torch.tensor(ALPHA)}, delta * strength


def lokr(draw: Draw, weight: torch.Tensor) -> Drawn:
    return _kron(draw, weight, False, False)


def lokr_second(draw: Draw, weight: torch.Tensor) -> Drawn:
    return _kron(draw, weight, False, True)


def lokr_both(draw: Draw, weight: torch.Tensor) -> Drawn:
    return _kron(draw, weight, True, True)


def full(draw: Draw, weight: torch.Tensor) -> Drawn:
    delta = draw(*weight.shape, size=0.1)
    return {"diff": delta}, delta


def _decomposed(drawn: Drawn, magnitude: torch.Tensor, weight: torch.Tensor, dim: int) -> Drawn:
    tensors, delta = drawn
    merged = weight + delta
    others = [each for each in range(weight.ndim) if each != dim]
    scaled = magnitude * merged / torch.linalg.vector_norm(merged, dim=others, keepdim=True)
    return {**tensors, "dora_scale": magnitude}, scaled - weight


def dora(draw: Draw, weight: torch.Tensor) -> Drawn:
    """Of rows, as peft's and LyCORIS' `wd_on_output`."""
    magnitude = draw(len(weight), *(1,) * (weight.ndim - 1)).abs() + 0.5
    return _decomposed(lora(draw, weight), magnitude, weight, 0)


def dora_of_columns(draw: Draw, weight: torch.Tensor) -> Drawn:
    magnitude = draw(1, weight.shape[1], *(1,) * (weight.ndim - 2)).abs() + 0.5
    return _decomposed(lora(draw, weight), magnitude, weight, 1)


def dora_of_loha(draw: Draw, weight: torch.Tensor) -> Drawn:
    magnitude = draw(len(weight), *(1,) * (weight.ndim - 1)).abs() + 0.5
    return _decomposed(loha(draw, weight), magnitude, weight, 0)


def ia3(draw: Draw, weight: torch.Tensor) -> Drawn:
    vector = draw(len(weight))
    scaled = weight * vector.reshape(-1, *(1,) * (weight.ndim - 1))
    return {"weight": vector, "on_input": torch.tensor(False)}, scaled


def ia3_of_inputs(draw: Draw, weight: torch.Tensor) -> Drawn:
    vector = draw(1, weight.shape[1], *(1,) * (weight.ndim - 2))
    return {"weight": vector, "on_input": torch.tensor(True)}, weight * vector


def glora(draw: Draw, weight: torch.Tensor) -> Drawn:
    out, read, *kernel = weight.shape
    ends = (1,) * len(kernel)
    a1, a2 = draw(read, RANK, *ends), draw(RANK, read, *ends)
    b1, b2 = draw(out, RANK, *ends), draw(RANK, read, *kernel)
    beside = (b1.flatten(1) @ b2.flatten(1)).reshape(weight.shape)
    on_weight = torch.einsum("oi...,ij->oj...", weight, a1.flatten(1) @ a2.flatten(1))
    names = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")
    tensors = dict(zip(names, (a1, a2, b1, b2), strict=True))
    return {**tensors, "alpha": torch.tensor(ALPHA)}, (beside + on_weight) * STRENGTH


def _turn(skew: torch.Tensor) -> torch.Tensor:
    ones = torch.eye(len(skew))
    return (ones + skew) @ torch.linalg.inv(ones - skew)


def oft(draw: Draw, weight: torch.Tensor) -> Drawn:
    out = len(weight)
    size = 8 if out % 8 == 0 else 4
    blocks = draw(out // size, size, size)
    turns = torch.block_diag(*(_turn(block - block.T) for block in blocks))
    turned = (turns.T @ weight.flatten(1)).reshape(weight.shape)
    return {"oft_blocks": blocks, "alpha": torch.tensor(0.0)}, turned - weight


def oft_rescaled(draw: Draw, weight: torch.Tensor) -> Drawn:
    tensors, delta = oft(draw, weight)
    rescale = 1 + draw(len(weight), *(1,) * (weight.ndim - 1))
    return {**tensors, "rescale": rescale}, rescale * (weight + delta) - weight


def boft(draw: Draw, weight: torch.Tensor) -> Drawn:
    """Blocks turn numbers that lie ever farther from one another."""
    out = len(weight)
    size = out // (4 if out % 8 == 0 else 2)
    stages = (out // size).bit_length()
    blocks = draw(stages, out // size, size, size)
    turned = weight.flatten(1).clone()
    for stage in range(stages):
        apart = 2**stage * size // 2
        order = torch.arange(out).reshape(-1, 2, apart).transpose(1, 2).flatten()
        turns = torch.block_diag(*(_turn(block - block.T) for block in blocks[stage]))
        turned[order] = turns @ turned[order]
    tensors = {"oft_blocks": blocks, "alpha": torch.tensor(0.0)}
    return tensors, turned.reshape(weight.shape) - weight


KINDS: dict[str, Callable[[Draw, torch.Tensor], Drawn]] = {
    each.__name__: each
    for each in (
        *(lora, tucker, loha, loha_tucker, lokr, lokr_second, lokr_both, full),
        *(dora, dora_of_columns, dora_of_loha, ia3, ia3_of_inputs, glora, oft, oft_rescaled, boft),
    )
}
PREFIXES = {
    "unet": "lora_unet_",
    "transformer": "lora_transformer_",
    "text_encoder": "lora_te_",
    "text_encoder_2": "lora_te2_",
}


def write(
    path: Path,
    pipeline: Any,
    kind: str,
    parts: tuple[str, ...],
    *,
    layers: str = ".",
    seed: int = 1,
) -> dict[torch.nn.Module, torch.Tensor]:
    """Write a LoRA of a kind for all linear layers and convolutions whose names hold a pattern.

    Returns the change of each layer's weight.
    """
    draw, tensors = Draw(seed), {}
    deltas: dict[torch.nn.Module, torch.Tensor] = {}
    two = getattr(pipeline, "text_encoder_2", None) is not None
    for part in parts:
        prefix = PREFIXES[part] if part != "text_encoder" or not two else "lora_te1_"
        for name, module in getattr(pipeline, part).named_modules():
            known = isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
            if not known or not re.search(layers, name):
                continue
            level = "" if part in DENOISERS or "text_projection" in name else "text_model_"
            level = "" if name.startswith("text_model") else level
            with torch.no_grad():
                made, delta = KINDS[kind](draw, module.weight.detach().float())
            key = f"{prefix}{level}{name.replace('.', '_')}"
            tensors |= {f"{key}.{end}": tensor.contiguous() for end, tensor in made.items()}
            deltas[module] = delta
    save_file(tensors, path)
    return deltas


def merge(deltas: dict[torch.nn.Module, torch.Tensor], scale: float) -> None:
    """Add the changes to the weights."""
    with torch.no_grad():
        for module, delta in deltas.items():
            module.weight += scale * delta  # type: ignore[operator, assignment]
