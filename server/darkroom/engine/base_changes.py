"""Changes of a layer's weight that depend on the weight itself: DoRA, GLoRA, (IA)³, OFT, BOFT."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch.nn import functional

from darkroom.engine.layer_weights import Module, feature_dim, multiplied, weight_of
from darkroom.engine.weight_changes import At, Change, LowRank


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

    def of(self, at: At) -> torch.Tensor:
        assert self.gain is not None
        gain = at.along(self.gain)
        if self.of_inputs:
            made = self.inner.of(at.given(at.inputs * gain))
            return made + multiplied(at.layer, at.inputs * (gain - 1)).to(made)
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

    def of(self, at: At) -> torch.Tensor:
        made, pair = self.beside.of(at), self.on_weight
        if hasattr(at.layer, "kernel_size"):
            between = functional.conv2d(at.inputs.to(made), pair.down[..., None, None])
            between = functional.conv2d(between, pair.up[..., None, None])
        else:
            between = pair.of(at)
        return made + multiplied(at.layer, between.to(at.inputs)).to(made)

    def shape(self) -> tuple[int | None, ...]:
        return self.beside.shape()

    def laid_out(self, shape: tuple[int, ...]) -> Change:
        return replace(self, beside=self.beside.laid_out(shape))

    def rows(self, index: torch.Tensor) -> Change:
        return Generalised(self.on_weight, self.beside.rows(index))


@dataclass(frozen=True)
class Scaling(Change):
    """(IA)³: ΔW = W scaled by a vector, along the numbers that the layer reads or makes.

    Attributes:
        with_bias: whether the layer's bias is scaled too, as peft does.
    """

    vector: torch.Tensor
    of_inputs: bool
    with_bias: bool = False

    @property
    def needs_base(self) -> bool:
        return not self.of_inputs

    def of(self, at: At) -> torch.Tensor:
        vector = at.along(self.vector)
        if self.of_inputs:
            scaled = at.inputs * vector.to(at.inputs)
            return multiplied(at.layer, scaled).to(vector)
        assert at.base is not None
        made = at.base.to(vector) * vector
        bias: torch.Tensor | None = at.layer.bias if self.with_bias else None
        return made if bias is None else made + at.along(bias).to(vector) * vector

    def shape(self) -> tuple[int | None, ...]:
        return (None, len(self.vector), None) if self.of_inputs else (len(self.vector), None)

    def rows(self, index: torch.Tensor) -> Change:
        return self if self.of_inputs else replace(self, vector=self.vector[index])


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

    def of(self, at: At) -> torch.Tensor:
        assert at.base is not None
        base = at.base.to(self.blocks)
        features = feature_dim(at.layer, base)
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
