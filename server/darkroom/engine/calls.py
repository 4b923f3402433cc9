"""The arguments of a UNet call: tensors with a row a sample or two, by name."""

from collections.abc import Callable
from typing import Any

import torch


def map_tensors(
    call: dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, Any]:
    """The same call with every tensor changed; what is None stays None."""
    changed: dict[str, Any] = {}
    for name, value in call.items():
        if isinstance(value, dict):
            changed[name] = map_tensors(value, change)
        else:
            changed[name] = None if value is None else change(value)
    return changed
