"""Which layers of a model a LoRA changes, and what it adds to their outputs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from darkroom.engine.layer_weights import layer_shape
from darkroom.engine.lora_file import Updates
from darkroom.engine.weight_changes import At, Bias, Change, Norm

Layer = torch.nn.Module


def fit(
    parts: Mapping[str, torch.nn.Module], updates: Updates, device: torch.device
) -> dict[str, dict[Layer, Change]]:
    """The changes of the models' layers, for each part, on the device, in its part's dtype.

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


def _fit(model: Any, updates: Mapping[str, Change], device: torch.device) -> dict[Layer, Change]:
    modules = dict(model.named_modules())
    found: dict[Layer, Change] = {}
    for name, change in updates.items():
        known = name if name in modules else name.removeprefix("text_model.")
        module = modules.get(known)
        if module is None or not _takes(module, change):
            raise ValueError(f"is for another model: this one has no layer {name}")
        want = layer_shape(module)
        _check(name, change, want)
        placed = change.laid_out(want).to(device, torch.float32).fitted(module)
        moved = placed.to(device, model.dtype)
        if not all(tensor.isfinite().all() for tensor in moved.tensors()):
            raise ValueError(f"holds numbers that are too large for {model.dtype}, in {name}")
        found[module] = moved
    return found


def _takes(module: torch.nn.Module, change: Change) -> bool:
    """Whether a module is of the kind that a change is for."""
    if not isinstance(getattr(module, "weight", None), torch.Tensor):
        return False
    multiplies = isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    return isinstance(change, Bias) or multiplies != isinstance(change, Norm)


def _check(name: str, change: Change, want: tuple[int, ...]) -> None:
    made, *read = change.shape()
    known = [size for size in read if size is not None]
    columns = math.prod(known) if len(known) == len(read) else None
    if made not in (None, want[0]) or columns not in (None, math.prod(want[1:])):
        raise ValueError(
            f"is for another model: its {name} is {change.shape()}, but this model's is {want}"
        )


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

    def add(self, change: Change, at: At, output: torch.Tensor) -> None:
        """Add to a layer's output, in place, what a change makes of its inputs.

        Raises:
            ValueError: the inputs have not one entry a row, and the rows differ.
        """
        if self.rows is None:
            output += self._scaled(change.of(at), 1)
            return
        inputs = at.inputs
        # A network may repeat its rows, as Qwen-Image does for timesteps at which references are.
        times, rest = divmod(len(inputs), self.of)
        if rest:
            raise ValueError(f"a layer has {len(inputs)} inputs, but the call {self.of} rows")
        for turn in range(times):
            place = self._place(turn * self.of, inputs.device)
            base = None if at.base is None else at.base[place]
            added = self._scaled(change.of(At(at.layer, inputs[place], base)), inputs.ndim)
            if isinstance(place, slice):
                output[place] += added
            else:
                output.index_add_(0, place, added.to(output.dtype).expand_as(output[place]))

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
