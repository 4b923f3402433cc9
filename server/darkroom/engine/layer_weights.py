"""A layer's weight, and what it alone makes of the layer's inputs.

Weights may be packed, quantised or elsewhere, so where it can be the layer is called instead.
"""

from typing import Any

import torch

from darkroom.engine.packing import PackedConv2d

Module = Any  # Linear, Conv2d, or a normalisation


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
        dtype = parameter.dtype
        if not parameter.is_floating_point():  # what quantised numbers are kept in
            dtype = getattr(layer, "compute_dtype", None) or torch.float16
        ones = torch.eye(read, device=parameter.device, dtype=dtype)
        return multiplied(layer, ones).T
    raise ValueError("is a DoRA of convolutions, whose weights are not at hand in this model")


def layer_shape(layer: Module) -> tuple[int, ...]:
    """The shape of a layer's weight, which may be packed."""
    if isinstance(layer, torch.nn.Linear):
        return (layer.out_features, layer.in_features)
    if isinstance(layer, torch.nn.Conv2d):
        return (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    return tuple(layer.weight.shape)


def multiplied(layer: Module, inputs: torch.Tensor) -> torch.Tensor:
    """W·x, of whatever stands for the layer's weight."""
    return without_bias(layer, layer.forward(inputs))


def without_bias(layer: Module, output: torch.Tensor) -> torch.Tensor:
    """W·x of what a layer gave, as a copy."""
    bias: torch.Tensor | None = getattr(layer, "bias", None)
    return output.clone() if bias is None else output - along(layer, bias).to(output)


def feature_dim(layer: Module, values: torch.Tensor) -> int:
    """The dimension of the numbers of one place."""
    return 1 if hasattr(layer, "kernel_size") else values.ndim - 1


def along(layer: Module, vector: torch.Tensor) -> torch.Tensor:
    """A vector that lies along the numbers of one place."""
    planes = isinstance(layer, torch.nn.Conv2d | torch.nn.GroupNorm)
    return vector.reshape(-1, 1, 1) if planes else vector


def geometry(layer: Module) -> Any:
    return layer.stride, layer.padding, layer.dilation, layer.groups
