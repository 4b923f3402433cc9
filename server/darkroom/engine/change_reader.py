"""Reads changes of weights from the tensors of one layer of a LoRA file."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from darkroom.catalog.lora_tensors import Layer
from darkroom.engine.base_changes import Decomposed, Generalised, Rotation, Scaling
from darkroom.engine.weight_changes import Bias, Change, Full, Kronecker, LowRank, Norm, Several


def read(layer: Layer, tensors: Mapping[str, torch.Tensor], strength: float) -> Change:
    """The change that a layer of a file makes.

    Args:
        tensors: of the file, by key, in float32.
        strength: of a LoRA, alpha / rank.

    Raises:
        ValueError: its tensors do not fit together.
    """
    has = {name: tensors[key] for name, key in layer.keys.items()}
    if "diff" in has and has["diff"].ndim == 1:
        return Norm(has["diff"], has.get("diff_b"))
    try:
        made = [_made(kind, has, strength) for kind in layer.kinds]
    except (RuntimeError, IndexError) as error:
        raise ValueError(f"is damaged: tensors do not fit together ({error!s:.100})") from None
    magnitude = has.get("dora_scale", has.get("magnitude"))
    if magnitude is not None:
        inner, *others = made
        # LyCORIS' is of columns, (1, in, …), or (out, 1, …); peft's of rows.
        of_inputs = "dora_scale" in has and magnitude.ndim > 1 and magnitude.shape[0] == 1
        made = [Decomposed(inner, magnitude, of_inputs), *others]
    return made[0] if len(made) == 1 else Several(tuple(made))


def _made(kind: str, has: Mapping[str, torch.Tensor], strength: float) -> Change:
    def scaled(rank: int) -> float:
        by_alpha = float(has["alpha"]) / rank if "alpha" in has else 1.0
        return float(has.get("scalar", 1.0)) * by_alpha

    match kind:
        case "LoRA":
            down, up = has["down"], has["up"]
            factor = strength * float(has.get("scalar", 1.0))
            if "mid" in has:
                down = torch.einsum("mrkl,ri->mikl", has["mid"], down.flatten(1))
            return LowRank(down, up * factor)
        case "LoHa":
            return _hadamard(has, scaled(has["loha_w1_b"].shape[0]))
        case "LoKr":
            return _kronecker(has, scaled)
        case "GLoRA":
            return _generalised(has, scaled)
        case "OFT":
            return _rotation(has)
        case "(IA)³":
            if "ia3_l" in has:
                return _scaling_of_peft(has["ia3_l"])
            return Scaling(has["weight"].flatten(), bool(has["on_input"]))
        case "full difference":
            return Full(has["diff"] * scaled(1) if "scalar" in has else has["diff"])
        case "difference of a bias":
            return Bias(has["diff_b"].flatten())
    return Norm(has["w_norm"], has.get("b_norm"))


def _scaling_of_peft(vector: torch.Tensor) -> Change:
    """peft's (IA)³, which multiplies: (out, 1) what a layer gives, (1, in) what it reads."""
    if vector.ndim != 2:
        raise ValueError("is an (IA)³ of convolutions that was saved by peft, which is not read")
    of_inputs = vector.shape[0] == 1
    return Scaling(vector.flatten() - 1, of_inputs, with_bias=not of_inputs)


def _hadamard(has: Mapping[str, torch.Tensor], factor: float) -> Change:
    """(one · one′) ∘ (two · two′): of rank r² at most, which is more than all where r is large."""
    ups, downs = [], []
    for side in ("1", "2"):
        first, second, core = (
            has.get(f"loha_{n}") for n in (f"w{side}_a", f"w{side}_b", f"t{side}")
        )
        assert first is not None
        assert second is not None
        if core is not None:
            first, second = first.T, torch.einsum("ijkl,jr->irkl", core, second)
        ups.append(first)
        downs.append(second)
    rank, out = downs[0].shape[0], ups[0].shape[0]
    kernel = downs[0].shape[1:]
    columns = math.prod(kernel)
    if rank**2 * (out + columns) < out * columns:
        up = torch.einsum("oi,oj->oij", *ups).flatten(1) * factor
        down = torch.einsum("ip,jp->ijp", *(each.flatten(1) for each in downs)).flatten(0, 1)
        return LowRank(down.reshape(-1, *kernel), up)
    one, two = (up @ down.flatten(1) for up, down in zip(ups, downs, strict=True))
    return Full((one * two * factor).reshape(out, *kernel))


def _kronecker(has: Mapping[str, torch.Tensor], scaled: Any) -> Change:
    ranks = [has[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b") if name in has]
    one = has["lokr_w1"] if "lokr_w1" in has else has["lokr_w1_a"] @ has["lokr_w1_b"]
    factor = scaled(ranks[0]) if ranks else float(has.get("scalar", 1.0))
    other: Change
    if "lokr_w2" in has:
        other = Full(has["lokr_w2"])
    else:
        up, down = has["lokr_w2_a"], has["lokr_w2_b"]
        if "lokr_t2" in has:
            up, down = up.T, torch.einsum("ijkl,jr->irkl", has["lokr_t2"], down)
        other = LowRank(down, up)
    return Kronecker(one * factor, other)


def _generalised(has: Mapping[str, torch.Tensor], scaled: Any) -> Change:
    a1, a2, b1, b2 = (has[f"glora_{name}"] for name in ("a1", "a2", "b1", "b2"))
    if a1.shape[0] < a1.shape[1]:  # LyCORIS had them the other way round at first
        a1, a2, b1, b2 = a2, a1, b2, b1
    factor = scaled(a2.shape[0])
    pair = LowRank(a2.flatten(1), a1.flatten(1) * factor)
    return Generalised(pair, LowRank(b2, b1 * factor))


def _rotation(has: Mapping[str, torch.Tensor]) -> Change:
    """By Cayley's map of what is skew-symmetric; alpha limits its norm."""
    blocks, butterfly = has["oft_blocks"], has["oft_blocks"].ndim == 4
    blocks = blocks if butterfly else blocks[None]
    skew = blocks - blocks.transpose(-1, -2)
    limit = float(has.get("alpha", 0.0)) * blocks.shape[1] * blocks.shape[2]
    norm = float(skew.norm()) + 1e-8
    if 0 < limit < norm:
        skew = skew * (limit / norm)
    ones = torch.eye(blocks.shape[-1])
    turns = (ones + skew) @ torch.linalg.inv(ones - skew)
    rescale = has["rescale"].flatten() if "rescale" in has else None
    return Rotation(turns if butterfly else turns.transpose(-1, -2), rescale, butterfly)
