"""Weights laid out once for the CPU's kernels, instead of again at every call.

oneDNN wants convolution and linear weights in blocked layouts that depend on the CPU. Eager
PyTorch keeps the plain layout and reorders at every call, and sends float32 linear layers to MKL,
which is slower on AMD. Here both are packed once, as `torch.compile` with freezing does, but
without its minutes of compilation: 0.6 to 0.75 of the time of a UNet call (docs/benchmarks.md).
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import nn

PADDED_DIMENSIONS = 112  # where they stand in oneDNN's description of a tensor
GEOMETRY = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding"),
    *("dilation", "groups", "padding_mode", "transposed", "output_padding"),
)


class PackedLinear(nn.Linear):
    """An `nn.Linear` whose `weight` is empty; the packed one is kept beside it."""

    def __init__(self, plain: nn.Linear, rows: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight = nn.Parameter(plain.weight.new_empty(0), requires_grad=False)
        self.bias = plain.bias
        self._rows = rows
        self._packed = self._reordered(plain.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._packed, self.bias, "none", [], ""
        )
        return packed

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        if self._packed.dtype != self.weight.dtype:
            self._packed = self._reordered(self._packed.to_dense(self.weight.dtype))
        return self

    def _reordered(self, weight: torch.Tensor) -> torch.Tensor:
        packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, self._rows)
        return packed


class PackedConv2d(nn.Conv2d):
    """An `nn.Conv2d` whose `weight` is empty; the packed one is kept beside it.

    oneDNN chooses one of a few layouts by the input's size. Given another one it reorders the
    weight at every call, which takes up to a hundred times as long as the call itself. So the
    weight is kept in each layout that was needed so far.
    """

    def __init__(self, plain: nn.Conv2d, shape: torch.Size) -> None:
        nn.Module.__init__(self)
        for name in GEOMETRY:
            setattr(self, name, getattr(plain, name))
        self.weight = nn.Parameter(plain.weight.new_empty(0), requires_grad=False)
        self.bias = plain.bias
        geometry = (plain.padding, plain.stride, plain.dilation)
        self._geometry = (*(list(part) for part in geometry), plain.groups)
        self._packed = {shape[-2:]: self._reordered(plain.weight, shape)}  # by height and width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self._packed.get(x.shape[-2:])
        if weight is None:
            weight = self._packed[x.shape[-2:]] = self._packed_for(x.shape)
        convolved: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, self.bias, *self._geometry, "none", [], ""
        )
        return convolved

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        size, packed = next(iter(self._packed.items()))
        if packed.dtype != self.weight.dtype:
            plain = packed.to_dense(self.weight.dtype)
            shape = torch.Size((1, self.in_channels, *size))
            self._packed = {size: self._reordered(plain, shape)}
        return self

    def plain_weight(self) -> torch.Tensor:
        """The weight as any layer has it."""
        return next(iter(self._packed.values())).to_dense()

    def _packed_for(self, shape: torch.Size) -> torch.Tensor:
        """The weight for inputs of a new size; one that is kept already, if it is laid out so."""
        weight = self._reordered(self.plain_weight(), shape)
        return next(
            (each for each in self._packed.values() if _layout(each) == _layout(weight)), weight
        )

    def _reordered(self, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        packed: torch.Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            weight, *self._geometry, list(shape)
        )
        return packed


def _layout(packed: torch.Tensor) -> bytes:
    """Padding, strides and blocks of a packed weight.

    oneDNN describes them in a C struct (`memory_desc_t`), which begins with the number of
    dimensions, the dimensions and the type. Four bytes of padding follow that mean nothing.
    """
    described: bytes = torch.ops.mkldnn._get_mkldnn_serialized_md(packed).numpy().tobytes()
    return described[PADDED_DIMENSIONS:]


def pack(module: nn.Module, typical_call: Callable[[], Any]) -> None:
    """Replace a module's linear and convolution layers by packed ones, where that is possible.

    Packed layers cannot be moved or saved. Does nothing off the CPU, in a dtype that oneDNN
    does not pack on this CPU, or where PyTorch was built without oneDNN.

    Args:
        module: in evaluation mode.
        typical_call: calls the module with inputs of the usual shapes, which the layouts are
            chosen for; other shapes work too.
    """
    first = next(module.parameters())
    if first.device.type != "cpu" or not _packs(first.dtype):
        return
    for name, (plain, shape) in _input_shapes(module, typical_call).items():
        packed: nn.Module
        if isinstance(plain, nn.Linear):
            packed = PackedLinear(plain, shape.numel() // shape[-1])
        else:
            packed = PackedConv2d(plain, shape)
        module.set_submodule(name, packed.eval())


def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN lays out weights of this type; bfloat16 it does on newer CPUs alone."""
    if not torch.backends.mkldnn.is_available():
        return False
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or (dtype == torch.bfloat16 and supported)


def _input_shapes(
    module: nn.Module, typical_call: Callable[[], Any]
) -> dict[str, tuple[nn.Linear | nn.Conv2d, torch.Size]]:
    """Each packable layer and the shape of its input; layers that are not called are left out."""
    shapes: dict[str, tuple[nn.Linear | nn.Conv2d, torch.Size]] = {}
    hooks = []
    for name, layer in module.named_modules():
        plain_conv = type(layer) is nn.Conv2d and layer.padding_mode == "zeros"
        if type(layer) is nn.Linear or (plain_conv and not isinstance(layer.padding, str)):

            def note(layer: Any, inputs: tuple[torch.Tensor], name: str = name) -> None:
                shapes[name] = layer, inputs[0].shape

            hooks.append(layer.register_forward_pre_hook(note))
    try:
        typical_call()
    finally:
        for hook in hooks:
            hook.remove()
    return shapes
