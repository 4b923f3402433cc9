"""Which layers of a model a LoRA changes, and what it adds to their outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from darkroom.engine.lora_file import LowRank, Updates

Layer = torch.nn.Linear | torch.nn.Conv2d


def fit(
    parts: Mapping[str, torch.nn.Module], updates: Updates, device: torch.device
) -> dict[str, dict[Layer, LowRank]]:
    """The updates of the models' layers, for each part, on the device, in its part's dtype.

    transformers 5 took the level `text_model.` out of CLIPTextModel, and left it in
    CLIPTextModelWithProjection; files have it for both.

    Raises:
        ValueError: a part or a layer is not there, or has another shape; or numbers are too large
            for the dtype.
        torch.OutOfMemoryError: they do not fit into memory.
    """
    for part, layers in updates.items():
        if layers and part not in parts:
            raise ValueError(f"is for another model: this one has no {part}")
    return {part: _fit(model, updates.get(part, {}), device) for part, model in parts.items()}


def _fit(model: Any, updates: Mapping[str, LowRank], device: torch.device) -> dict[Layer, LowRank]:
    modules = dict(model.named_modules())
    found: dict[Layer, LowRank] = {}
    for name, update in updates.items():
        known = name if name in modules else name.removeprefix("text_model.")
        module = modules.get(known)
        if not isinstance(module, Layer):
            raise ValueError(f"is for another model: this one has no layer {name}")
        have = (tuple(update.up.shape), tuple(update.down.shape))
        want = _shapes(module, update.rank)
        if have != want:
            raise ValueError(
                f"is for another model: its {name} is {have[0]}·{have[1]}, "
                f"but this model's takes {want[0]}·{want[1]}"
            )
        halves = (update.down, update.up)
        # Copies, which do not keep the bytes of the whole file in memory.
        moved = LowRank(*(half.to(device, model.dtype, copy=True) for half in halves))
        if not (moved.down.isfinite().all() and moved.up.isfinite().all()):
            raise ValueError(f"holds numbers that are too large for {model.dtype}, in {name}")
        found[module] = moved
    return found


def _shapes(module: Layer, rank: int) -> tuple[Any, Any]:
    """Shapes of up and down, without the layer's weight, which may be packed."""
    if isinstance(module, torch.nn.Linear):
        return (module.out_features, rank), (rank, module.in_features)
    inputs = module.in_channels // module.groups
    return (module.out_channels, rank, 1, 1), (rank, inputs, *module.kernel_size)


@dataclass(frozen=True)
class Share:
    """The rows of a call that a LoRA changes, and how much.

    Attributes:
        of: how many rows the call has.
        rows: in order; None is all, in layers with any inputs.
        scales: of each of these rows, or one for all.
    """

    of: int
    rows: Sequence[int] | None
    scales: Sequence[float]
    _tensors: dict[Any, torch.Tensor] = field(default_factory=dict)  # made once for all layers

    def add(
        self, layer: Layer, update: LowRank, inputs: torch.Tensor, output: torch.Tensor
    ) -> None:
        """Add to a layer's output, in place, what an update makes of its inputs.

        Raises:
            ValueError: the inputs have not one entry a row, and the rows differ.
        """
        if self.rows is None:
            output += self._scaled(_change(layer, update, inputs), 1)
            return
        # A network may repeat its rows, as Qwen-Image does for timesteps at which references are.
        times, rest = divmod(len(inputs), self.of)
        if rest:
            raise ValueError(f"a layer has {len(inputs)} inputs, but the call {self.of} rows")
        for turn in range(times):
            place = self._place(turn * self.of, inputs.device)
            change = self._scaled(_change(layer, update, inputs[place]), inputs.ndim)
            if isinstance(place, slice):
                output[place] += change
            else:
                output.index_add_(0, place, change.to(output.dtype))

    def _place(self, start: int, device: torch.device) -> slice | torch.Tensor:
        assert self.rows is not None
        first, last = self.rows[0], self.rows[-1]
        if last - first + 1 == len(self.rows):
            return slice(start + first, start + last + 1)
        if start not in self._tensors:
            self._tensors[start] = torch.tensor(self.rows, device=device) + start
        return self._tensors[start]

    def _scaled(self, change: torch.Tensor, dimensions: int) -> torch.Tensor:
        if len(self.scales) > 1:
            if change.dtype not in self._tensors:
                column = torch.tensor(self.scales, device=change.device, dtype=change.dtype)
                self._tensors[change.dtype] = column
            return change * self._tensors[change.dtype].reshape(-1, *(1,) * (dimensions - 1))
        (scale,) = self.scales
        return change if scale == 1 else change * scale


def _change(layer: Layer, update: LowRank, inputs: torch.Tensor) -> torch.Tensor:
    inputs = inputs.to(update.down.dtype)
    if isinstance(layer, torch.nn.Linear):
        return functional.linear(functional.linear(inputs, update.down), update.up)
    geometry: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)
    down = functional.conv2d(inputs, update.down, None, *geometry)
    return functional.conv2d(down, update.up)


def shares(rows: Sequence[Mapping[Any, float]]) -> dict[Any, Share]:
    """For each LoRA of a call its share, of the scales by LoRA of each row."""
    if all(row == rows[0] for row in rows):
        return {lora: Share(len(rows), None, (scale,)) for lora, scale in rows[0].items()}
    made = {}
    for lora in dict.fromkeys(lora for row in rows for lora in row):
        mine = [index for index, row in enumerate(rows) if lora in row]
        scales = [rows[index][lora] for index in mine]
        made[lora] = Share(len(rows), mine, scales[:1] if len({*scales}) == 1 else scales)
    return made
