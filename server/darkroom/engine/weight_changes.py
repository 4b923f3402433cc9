"""Changes of a layer's weight, of every kind that LoRA files hold, as what they add to its output.

A layer that gives y = W·x + b gives y + s·(ΔW·x) with a change ΔW of strength s. Most changes are
kept as their factors and never written out. Those that depend on W get what the layer gave, or
call the layer, so that W may be packed, quantised or elsewhere. The kinds and their formulas are
those of LyCORIS (https://arxiv.org/abs/2309.14859) and DoRA (https://arxiv.org/abs/2402.09353). A
change of strength s is s times that of strength 1, as in A1111 and ComfyUI; in peft DoRA's norm,
and in LyCORIS OFT's rescaling, depend on the strength too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch.nn import functional

from darkroom.engine.layer_weights import Module, along, feature_dim, geometry


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

    def of(self, at: At) -> torch.Tensor:
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

    def of(self, at: At) -> torch.Tensor:
        inputs = at.inputs.to(self.down.dtype)
        if self.down.ndim == 2:
            return functional.linear(functional.linear(inputs, self.down), self.up)
        down = functional.conv2d(inputs, self.down, None, *geometry(at.layer))
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

    def of(self, at: At) -> torch.Tensor:
        inputs = at.inputs.to(self.weight.dtype)
        if self.weight.ndim == 2:
            return functional.linear(inputs, self.weight)
        return functional.conv2d(inputs, self.weight, None, *geometry(at.layer))

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

    def of(self, at: At) -> torch.Tensor:
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

    def of(self, at: At) -> torch.Tensor:
        made = self.whole.of(at)
        return made.index_select(feature_dim(at.layer, made), self.index)

    def shape(self) -> tuple[int | None, ...]:
        return (len(self.index), *self.whole.shape()[1:])

    def laid_out(self, shape: tuple[int, ...]) -> Change:
        out = self.whole.shape()[0]
        assert out is not None
        return Rows(self.whole.laid_out((out, *shape[1:])), self.index)

    def delta(self) -> torch.Tensor:
        return self.whole.delta()[self.index]


@dataclass(frozen=True)
class Bias(Change):
    """A difference of the bias."""

    vector: torch.Tensor

    def of(self, at: At) -> torch.Tensor:
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

    def of(self, at: At) -> torch.Tensor:
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

    def of(self, at: At) -> torch.Tensor:
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
