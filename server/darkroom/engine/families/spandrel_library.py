"""Imports spandrel without torchvision, which it requires and this server does not install.

Of spandrel's forty architectures two, for repairing faces and for inpainting, use torchvision;
neither is asked for here. Its import fails without torchvision all the same. But torchvision is
built for one build of torch, and beside another, diffusers cannot be imported any more: the wheel
that pip chooses does that to every machine with torch for CPUs. So spandrel is installed without
its dependencies, and finds for the time of its import something by that name that does nothing.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Protocol

import torch

# What the two architectures import by name.
MISSING = {
    "torchvision": (),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": ("InterpolationMode", "normalize", "rotate"),
}


class Network(Protocol):
    """Of spandrel's `ImageModelDescriptor` what is used here."""

    @property
    def model(self) -> torch.nn.Module: ...

    @property
    def scale(self) -> int: ...

    @property
    def supports_half(self) -> bool: ...

    @property
    def supports_bfloat16(self) -> bool: ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Any: ...

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """From (1, 3, h, w) to (1, 3, scale·h, scale·w), both from 0 to 1."""


def build(weights: dict[str, torch.Tensor]) -> Network:
    """The network that weights are of.

    Raises:
        ValueError: spandrel is not here, or knows no such network, or it does something else.
        RuntimeError: the weights do not fit together.
    """
    ready()
    import spandrel

    try:
        found = spandrel.ModelLoader().load_from_state_dict(weights)
    except spandrel.UnsupportedModelError:
        raise ValueError("spandrel does not know its architecture") from None
    if not isinstance(found, spandrel.ImageModelDescriptor) or found.output_channels != 3:
        raise ValueError("it does not make pictures of red, green and blue larger")
    network: Network = found
    return network


def ready() -> None:
    """Import it, which takes a moment that only those wait for who use an upscaler.

    Raises:
        ValueError: it is not here.
    """
    if find_spec("spandrel") is None:
        raise ValueError("spandrel is not installed")
    with _stand_ins():
        importlib.import_module("spandrel")


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Something by torchvision's name, where there is none, while spandrel is imported."""
    if "spandrel" in sys.modules or find_spec("torchvision") is not None:
        yield
        return
    for name, members in MISSING.items():
        module = ModuleType(name)
        module.__dict__.update(dict.fromkeys(members))
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in MISSING:
            del sys.modules[name]
