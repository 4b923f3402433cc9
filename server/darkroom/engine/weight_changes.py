"""Changes of a layer's weight, of every kind that LoRA files hold, as what they add to its output.

A layer that gives y = W·x + b gives y + s·(ΔW·x) with a change ΔW of strength s. Most changes are
kept as their factors and never written out. Those that depend on W get what the layer gave, or
call the layer, so that W may be packed, quantised or elsewhere. The kinds and their formulas are
those of LyCORIS (https://arxiv.org/abs/2309.14859) and DoRA (https://arxiv.org/abs/2402.09353). A
change of strength s is s times that of strength 1, as in A1111 and ComfyUI; in peft DoRA's norm,
and in LyCORIS OFT's rescaling, depend on the strength too.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch.nn import functional

from darkroom.catalog.lora_tensors import Layer
from darkroom.engine.packing import PackedConv2d

Module = Any  # Linear, Conv2d, or a normalisation


@dataclass(frozen=True)
class At:
    """A call of a layer.

    Attributes:
        base: W·x, the layer's own output without its bias; only for changes that `needs_base`.
    """

    layer: Module
    inputs: torch.Tensor
    base: torch.Tensor | None = None

    def given(self, inputs: torch.Tensor) -> "At":
        """A call with other inputs."""
        return At(self.layer, inputs)

    def along(self, vector: torch.Tensor) -> torch.Tensor:
        """A vector that lies along the numbers of one place."""
        return along(self.layer, vector)


@dataclass(frozen=True)
class Change:
    """A change of one layer."""

    def of(self, at: "At") -> torch.Tensor:
        """What it adds to a layer's output, with strength 1."""
        raise NotImplementedError

    def shape(self) -> tuple[int | None, ...]:
        """The numbers that it makes and reads, and its kernel; None is any number."""
        raise NotImplementedError

    def delta(self) -> torch.Tensor:
        """ΔW, in the shape of the layer's weight."""
        raise NotImplementedError

    def laid_out(self, shape: tuple[int, ...]) -> "Change":  # noqa: ARG002
        """The same change of a weight of that shape: kernels may be written out in columns."""
        return self

    def rows(self, index: torch.Tensor) -> "Change":
        """The change of a layer that gives these of the numbers only.

        Raises:
            ValueError: it cannot be taken apart.
        """
        if self.needs_base:
            raise ValueError("changes layers by their weights that this model has in several parts")
        return Rows(self, index)

    def fitted(self, layer: Module) -> Self:  # noqa: ARG002
        """The change with what it has to know of a layer's weight."""
        return self

    @property
    def needs_base(self) -> bool:
        return False

    def tensors(self) -> Iterator[torch.Tensor]:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, torch.Tensor):
                yield value
            elif isinstance(value, Change):
                yield from value.tensors()
            elif isinstance(value, tuple):
                yield from (tensor for change in value for tensor in change.tensors())

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """A copy there, which keeps no bytes of the file in memory."""

        def moved(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                kept = dtype if value.is_floating_point() else value.dtype
                return value.to(device, kept, copy=True)
            if isinstance(value, tuple):
                return tuple(change.to(device, dtype) for change in value)
            return value.to(device, dtype) if isinstance(value, Change) else value

        return replace(
            self, **{each.name: moved(getattr(self, each.name)) for each in fields(self)}
        )


@dataclass(frozen=True)
class LowRank(Change):
    """ΔW = up · down, with its strength in `up`."""

    down: torch.Tensor  # (rank, in), or (rank, in, kernel, kernel) of a convolution
    up: torch.Tensor  # (out, rank), or (out, rank, 1, 1)

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def of(self, at: "At") -> torch.Tensor:
        inputs = at.inputs.to(self.down.dtype)
        if self.down.ndim == 2:
            return functional.linear(functional.linear(inputs, self.down), self.up)
        down = functional.conv2d(inputs, self.down, None, *_geometry(at.layer))
        return functional.conv2d(down, self.up)

    def shape(self) -> tuple[int | None, ...]:
        return (self.up.shape[0], *self.down.shape[1:])

    def delta(self) -> torch.Tensor:
        product = self.up.flatten(1) @ self.down.flatten(1)
        return product.reshape(len(self.up), *self.down.shape[1:])

    def laid_out(self, shape: tuple[int, ...]) -> Change:
        ends = (1,) * (len(shape) - 2)
        down = self.down.reshape(self.rank, *shape[1:])
        return LowRank(down, self.up.reshape(*self.up.shape[:2], *ends))

    def rows(self, index: torch.Tensor) -> Change:
        return LowRank(self.down, self.up[index])


@dataclass(frozen=True)
class Full(Change):
    """ΔW itself."""

    weight: torch.Tensor

    def of(self, at: "At") -> torch.Tensor:
        inputs = at.inputs.to(self.weight.dtype)
        if self.weight.ndim == 2:
            return functional.linear(inputs, self.weight)
        return functional.conv2d(inputs, self.weight, None, *_geometry(at.layer))

    def shape(self) -> tuple[int | None, ...]:
        return tuple(self.weight.shape)

    def delta(self) -> torch.Tensor:
        return self.weight

    def laid_out(self, shape: tuple[int, ...]) -> Change:
        return Full(self.weight.reshape(shape))

    def rows(self, index: torch.Tensor) -> Change:
        return Full(self.weight[index])


@dataclass(frozen=True)
class Kronecker(Change):
    """ΔW = one ⊗ other, which may be low-rank and has the convolution's kernel."""

    one: torch.Tensor  # (a, b)
    other: Change  # (c, d, …): the layer makes a·c numbers of b·d

    def of(self, at: "At") -> torch.Tensor:
        inputs = at.inputs.to(self.one.dtype)
        groups = self.one.shape[1]
        if hasattr(at.layer, "kernel_size"):
            parts = inputs.reshape(-1, inputs.shape[1] // groups, *inputs.shape[2:])
            made = self.other.of(at.given(parts))
            made = made.reshape(len(inputs), groups, *made.shape[1:])
            return torch.einsum("ab,nbchw->nachw", self.one, made).flatten(1, 2)
        made = self.other.of(at.given(inputs.unflatten(-1, (groups, -1))))
        return torch.einsum("ab,...bc->...ac", self.one, made).flatten(-2)

    def shape(self) -> tuple[int | None, ...]:
        made, read, *kernel = self.other.shape()
        assert made is not None
        assert read is not None
        return (self.one.shape[0] * made, self.one.shape[1] * read, *kernel)

    def laid_out(self, shape: tuple[int, ...]) -> Change:
        made, read = (size // part for size, part in zip(shape, self.one.shape, strict=False))
        return Kronecker(self.one, self.other.laid_out((made, read, *shape[2:])))

    def delta(self) -> torch.Tensor:
        other = self.other.delta()
        return torch.kron(self.one.reshape(*self.one.shape, *(1,) * (other.ndim - 2)), other)


@dataclass(frozen=True)
class Rows(Change):
    """Of another change the numbers that one part of a layer gives."""

    whole: Change
    index: torch.Tensor

    def of(self, at: "At") -> torch.Tensor:
        made = self.whole.of(at)
        return made.index_select(_features(at.layer, made), self.index)

    def shape(self) -> tuple[int | None, ...]:
        return (len(self.index), *self.whole.shape()[1:])

    def laid_out(self, shape: tuple[int, ...]) -> Change:
        out = self.whole.shape()[0]
        assert out is not None
        return Rows(self.whole.laid_out((out, *shape[1:])), self.index)

    def delta(self) -> torch.Tensor:
        return self.whole.delta()[self.index]


@dataclass(frozen=True)
class Decomposed(Change):
    """DoRA: W + ΔW = magnitude · (W + inner) / ‖W + inner‖, the norm of its rows or columns.

    Attributes:
        of_inputs: whether the magnitude is of columns.
        gain: magnitude / ‖W + inner‖; known once it is fitted.
    """

    inner: Change
    magnitude: torch.Tensor
    of_inputs: bool
    gain: torch.Tensor | None = None

    @property
    def needs_base(self) -> bool:
        return not self.of_inputs

    def fitted(self, layer: Module) -> Self:
        inner = self.inner.delta().float()
        merged = weight_of(layer).to(inner).reshape(inner.shape) + inner
        norm = (merged.transpose(0, 1) if self.of_inputs else merged).flatten(1).norm(dim=1)
        return replace(self, gain=self.magnitude.flatten() / (norm + torch.finfo(norm.dtype).eps))

    def of(self, at: "At") -> torch.Tensor:
        assert self.gain is not None
        gain = at.along(self.gain)
        if self.of_inputs:
            made = self.inner.of(at.given(at.inputs * gain))
            return made + _without_bias(at.layer, at.inputs * (gain - 1)).to(made)
        assert at.base is not None
        made = self.inner.of(at)
        return made * gain + at.base.to(made) * (gain - 1)

    def shape(self) -> tuple[int | None, ...]:
        return self.inner.shape()

    def laid_out(self, shape: tuple[int, ...]) -> Change:
        return replace(self, inner=self.inner.laid_out(shape))

    def rows(self, index: torch.Tensor) -> Change:
        if self.of_inputs:
            raise ValueError("is a DoRA of columns of layers that this model has in several parts")
        return Decomposed(self.inner.rows(index), self.magnitude.flatten()[index], False)


@dataclass(frozen=True)
class Generalised(Change):
    """GLoRA: ΔW = W · on_weight + beside."""

    on_weight: LowRank
    beside: Change

    def of(self, at: "At") -> torch.Tensor:
        made, pair = self.beside.of(at), self.on_weight
        if hasattr(at.layer, "kernel_size"):
            between = functional.conv2d(at.inputs.to(made), pair.down[..., None, None])
            between = functional.conv2d(between, pair.up[..., None, None])
        else:
            between = pair.of(at)
        return made + _without_bias(at.layer, between.to(at.inputs)).to(made)

    def shape(self) -> tuple[int | None, ...]:
        return self.beside.shape()

    def laid_out(self, shape: tuple[int, ...]) -> Change:
        return replace(self, beside=self.beside.laid_out(shape))

    def rows(self, index: torch.Tensor) -> Change:
        return Generalised(self.on_weight, self.beside.rows(index))


@dataclass(frozen=True)
class Scaling(Change):
    """(IA)³: ΔW = W scaled by a vector, along the numbers that the layer reads or makes."""

    vector: torch.Tensor
    of_inputs: bool

    @property
    def needs_base(self) -> bool:
        return not self.of_inputs

    def of(self, at: "At") -> torch.Tensor:
        vector = at.along(self.vector)
        if self.of_inputs:
            scaled = at.inputs * vector.to(at.inputs)
            return _without_bias(at.layer, scaled).to(vector)
        assert at.base is not None
        return at.base.to(vector) * vector

    def shape(self) -> tuple[int | None, ...]:
        return (None, len(self.vector), None) if self.of_inputs else (len(self.vector), None)

    def rows(self, index: torch.Tensor) -> Change:
        return self if self.of_inputs else Scaling(self.vector[index], False)


@dataclass(frozen=True)
class Rotation(Change):
    """OFT: W + ΔW = rescale · Rᵀ · W, where R is orthogonal; BOFT has several R, one after another.

    Attributes:
        blocks: (stages, blocks, size, size), of R - or of its transpose in BOFT - beside one
            another.
    """

    blocks: torch.Tensor
    rescale: torch.Tensor | None
    butterfly: bool

    @property
    def needs_base(self) -> bool:
        return True

    def of(self, at: "At") -> torch.Tensor:
        assert at.base is not None
        base = at.base.to(self.blocks)
        features = _features(at.layer, base)
        turned = base.movedim(features, -1)
        size = self.blocks.shape[-1]
        for number, blocks in enumerate(self.blocks):
            step = 2**number * (size // 2)
            if self.butterfly:
                turned = turned.unflatten(-1, (-1, 2, step)).transpose(-2, -1).flatten(-3)
            turned = torch.einsum("kmn,...kn->...km", blocks, turned.unflatten(-1, (-1, size)))
            turned = turned.flatten(-2)
            if self.butterfly:
                turned = turned.unflatten(-1, (-1, step, 2)).transpose(-2, -1).flatten(-3)
        if self.rescale is not None:
            turned = turned * self.rescale
        return turned.movedim(-1, features) - base

    def shape(self) -> tuple[int | None, ...]:
        return (self.blocks.shape[1] * self.blocks.shape[2], None)


@dataclass(frozen=True)
class Bias(Change):
    """A difference of the bias."""

    vector: torch.Tensor

    def of(self, at: "At") -> torch.Tensor:
        # Of each row one, to be scaled by its own strength.
        wide = (len(at.inputs), *(1,) * (at.inputs.ndim - 1))
        return at.along(self.vector) * self.vector.new_ones(wide)

    def shape(self) -> tuple[int | None, ...]:
        return (len(self.vector), None)

    def rows(self, index: torch.Tensor) -> Change:
        return Bias(self.vector[index])


@dataclass(frozen=True)
class Norm(Change):
    """Differences of a normalisation's weight and bias."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def of(self, at: "At") -> torch.Tensor:
        weight, bias, layer = self.weight, self.bias, at.layer
        inputs = at.inputs.to(weight)
        if isinstance(layer, torch.nn.GroupNorm):
            return functional.group_norm(inputs, layer.num_groups, weight, bias, layer.eps)
        if isinstance(layer, torch.nn.LayerNorm):
            return functional.layer_norm(inputs, weight.shape, weight, bias, layer.eps)
        made = functional.rms_norm(inputs, weight.shape, weight, getattr(layer, "eps", None))
        return made if bias is None else made + bias

    def shape(self) -> tuple[int | None, ...]:
        return (len(self.weight),)


@dataclass(frozen=True)
class Several(Change):
    """Several changes of one layer."""

    changes: tuple[Change, ...]

    @property
    def needs_base(self) -> bool:
        return any(change.needs_base for change in self.changes)

    def of(self, at: "At") -> torch.Tensor:
        first, *others = (change.of(at) for change in self.changes)
        return sum(others, first)

    def shape(self) -> tuple[int | None, ...]:
        first, *others = (change.shape() for change in self.changes)
        return first if not others or len(first) >= len(others[0]) else others[0]

    def laid_out(self, shape: tuple[int, ...]) -> Change:
        return Several(tuple(change.laid_out(shape) for change in self.changes))

    def rows(self, index: torch.Tensor) -> Change:
        return Several(tuple(change.rows(index) for change in self.changes))

    def fitted(self, layer: Module) -> Self:
        return replace(self, changes=tuple(change.fitted(layer) for change in self.changes))


# --- layers ------------------------------------------------------------------------------------


def weight_of(layer: Module) -> torch.Tensor:
    """A layer's weight, (out, in, …); also one that is packed or quantised."""
    weight: torch.Tensor = layer.weight
    whole = layer_shape(layer)
    if weight.is_floating_point() and tuple(weight.shape) == whole and not weight.is_meta:
        return weight.detach()
    if isinstance(layer, PackedConv2d):
        return layer.plain_weight()
    _, read, *kernel = whole
    parameter = next(layer.parameters())
    if not kernel:
        ones = torch.eye(read, device=parameter.device, dtype=parameter.dtype)
        return _without_bias(layer, ones).T
    raise ValueError("is a DoRA of convolutions, whose weights are not at hand in this model")


def layer_shape(layer: Module) -> tuple[int, ...]:
    """The shape of a layer's weight, which may be packed."""
    if isinstance(layer, torch.nn.Linear):
        return (layer.out_features, layer.in_features)
    if isinstance(layer, torch.nn.Conv2d):
        return (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    return tuple(layer.weight.shape)


def _without_bias(layer: Module, inputs: torch.Tensor) -> torch.Tensor:
    """W·x, of whatever stands for the layer's weight."""
    return without_bias(layer, layer.forward(inputs))


def without_bias(layer: Module, output: torch.Tensor) -> torch.Tensor:
    """W·x of what a layer gave, as a copy."""
    bias: torch.Tensor | None = getattr(layer, "bias", None)
    return output.clone() if bias is None else output - along(layer, bias).to(output)


def _features(layer: Module, values: torch.Tensor) -> int:
    """The dimension of the numbers of one place."""
    return 1 if hasattr(layer, "kernel_size") else values.ndim - 1


def along(layer: Module, vector: torch.Tensor) -> torch.Tensor:
    """A vector that lies along the numbers of one place."""
    planes = isinstance(layer, torch.nn.Conv2d | torch.nn.GroupNorm)
    return vector.reshape(-1, 1, 1) if planes else vector


def _geometry(layer: Module) -> Any:
    return layer.stride, layer.padding, layer.dilation, layer.groups


# --- files -------------------------------------------------------------------------------------


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
            return Scaling(has["weight"].flatten(), bool(has["on_input"]))
        case "full difference":
            return Full(has["diff"] * scaled(1) if "scalar" in has else has["diff"])
        case "difference of a bias":
            return Bias(has["diff_b"].flatten())
    return Norm(has["w_norm"], has.get("b_norm"))


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
