"""Pictures made larger by a network, a tile at a time.

A network of the ESRGAN family takes memory by the pixel, so a picture goes through it in tiles
that overlap. One tile is one step: the steps of others go on between two, and cancelling takes
effect at the next one.

spandrel, which loads the networks, requires torchvision, which this server does not install: the
wheel that pip chooses is built for another torch than the one for CPUs, and beside it diffusers
cannot be imported. Only two of spandrel's forty architectures use torchvision, for repairing faces
and for inpainting. So spandrel is installed without its dependencies, and while it is imported,
empty modules stand for torchvision's.
"""

import importlib
import sys
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import structlog
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from darkroom.catalog.upscalers import UpscalerEntry
from darkroom.engine import memory
from darkroom.engine.base import EngineJob
from darkroom.engine.errors import NotFiniteError, is_out_of_memory
from darkroom.engine.memory import Offload
from darkroom.errors import message
from darkroom.images import tiling
from darkroom.requests import Upscale

log = structlog.get_logger()

SMALLEST_TILE = 32  # pixels; below this a network sees too little of the picture

# What spandrel's two architectures import of torchvision by name.
TORCHVISION = {
    "torchvision": (),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": ("InterpolationMode", "normalize", "rotate"),
}


class Upscaler:
    """A `Family`: spandrel's `ImageModelDescriptor`, on its device, in its dtype."""

    def __init__(self, network: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._network = network
        self._device = device
        self._dtype = dtype
        self._largest = tiling.TILE  # what of a tile goes through at once; shrinks by running out
        self.scale: int = network.scale
        self.weight_bytes = memory.weight_bytes(network.model)

    # --- as a family -----------------------------------------------------------------------

    def warm_up(self, job: EngineJob) -> None:
        """It shares no calls."""

    def notes(self, job: EngineJob) -> list[str]:  # noqa: ARG002
        return []

    def admits(self, job: EngineJob) -> bool:  # noqa: ARG002
        return True

    def prepare(self, jobs: Sequence[EngineJob]) -> dict[str, list["Enlargement"]]:
        """One sample a job; nothing is computed yet.

        Raises:
            ValueError: it is no upscaling of a picture.
        """
        made = {}
        for job in jobs:
            if job.image is None or not isinstance(job.request, Upscale):
                raise ValueError("there is no picture to make larger")
            made[job.id] = [Enlargement(job.image, job.request.size(job.image.size))]
        return made

    def step(
        self,
        samples: Sequence["Enlargement"],
        max_rows: int,  # noqa: ARG002
    ) -> list[tuple["Enlargement", Exception]]:
        """One tile more of each sample."""
        for sample in samples:
            sample.pieces.append(self.enlarge(sample.next_tile))
        return []

    def preview(self, sample: "Enlargement") -> bytes | None:  # noqa: ARG002
        return None

    def decode(self, samples: Sequence["Enlargement"]) -> list[Image.Image]:
        return [sample.joined(self.scale) for sample in samples]

    def close(self, sample: "Enlargement") -> None:
        """Nothing outlives the sample."""

    def tile(self, side: int) -> None:
        """It cuts pictures by itself."""

    def offload(self, how: Offload) -> None:
        """It is small, and stays."""

    # --- one tile --------------------------------------------------------------------------

    def enlarge(self, picture: Image.Image) -> Image.Image:
        """A picture of a tile's size at most, made `scale` times as large.

        What does not fit in memory goes through in parts.

        Raises:
            torch.OutOfMemoryError: not even the smallest part fits.
        """
        if max(picture.size) > self._largest:
            parts = tiling.plan(picture.size, (self._largest,) * 2, tiling.overlap(self._largest))
            pieces = [self.enlarge(part) for part in tiling.cut(picture, parts)]
            return tiling.join(pieces, parts.enlarged(self.scale))
        try:
            return self._call(picture)
        except Exception as error:
            half = max(picture.size) // 2
            if not is_out_of_memory(error) or half < SMALLEST_TILE:
                raise
            self._largest = half
        # Not while the error is handled: it holds what the call had taken.
        if self._device.type != "cpu":
            torch.accelerator.empty_cache()
        return self.enlarge(picture)

    def _call(self, picture: Image.Image) -> Image.Image:
        pixels = torch.from_numpy(np.array(picture.convert("RGB")))  # (h, w, 3), 0 to 255
        inputs = pixels.permute(2, 0, 1).unsqueeze(0).to(self._device).to(self._dtype) / 255
        made = self._network(inputs)  # (1, 3, scale·h, scale·w), 0 to 1
        if not made.isfinite().all():
            raise NotFiniteError("upscaler")
        rounded = (made[0].float() * 255).round().clamp(0, 255).to(torch.uint8)
        return Image.fromarray(rounded.permute(1, 2, 0).cpu().contiguous().numpy())


class Enlargement:
    """A picture on its way through an upscaler, to `size` at the end; a `Sample`."""

    index = 0
    seed = 0
    row_count = 1
    recorder = None

    def __init__(self, picture: Image.Image, size: tuple[int, int]) -> None:
        self._picture = picture
        self._size = size
        self._tiles = tiling.for_upscaling(picture.size)
        self.pieces: list[Image.Image] = []
        self.steps = len(self._tiles.boxes)
        self.area = picture.width * picture.height
        self.skipped = 0

    @property
    def step(self) -> int:
        return len(self.pieces)

    @property
    def denoised(self) -> bool:
        return self.step >= self.steps

    @property
    def form(self) -> Hashable:
        return id(self)

    @property
    def next_tile(self) -> Image.Image:
        return self._picture.crop(self._tiles.boxes[self.step])

    def joined(self, scale: int) -> Image.Image:
        """The whole picture, of pieces that were made `scale` times as large."""
        whole = tiling.join(self.pieces, self._tiles.enlarged(scale))
        if whole.size == self._size:
            return whole
        return whole.resize(self._size, Image.Resampling.LANCZOS)


def load(entry: UpscalerEntry, device: torch.device, dtype: torch.dtype) -> Upscaler:
    """Load a network, in float32 if it cannot be used in `dtype`.

    Raises:
        OSError: it cannot be loaded; says why.
    """
    name = entry.path.name
    try:
        network = build(load_file(entry.path))
    except (ValueError, SafetensorError) as error:
        raise _unloadable(name, str(error)) from None
    except (RuntimeError, LookupError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        log.warning("upscaler not loaded", file=name, exc_info=error)
        raise _unloadable(name, "its tensors do not fit together") from None
    if network.scale != entry.info.scale:
        raise _unloadable(name, "it is not what its header says")
    able = {torch.float16: network.supports_half, torch.bfloat16: network.supports_bfloat16}
    chosen = dtype if able.get(dtype, True) else torch.float32
    network.model.eval().requires_grad_(requires_grad=False)
    network.to(device, chosen)
    return Upscaler(network, device, chosen)


def _unloadable(name: str, reason: str) -> OSError:
    said = "upscaler {name} cannot be loaded: {reason}"
    return OSError(message("upscaler_load", said, name=name, reason=reason))


def build(weights: dict[str, torch.Tensor]) -> Any:
    """The network of these weights: (1, 3, h, w) to (1, 3, scale·h, scale·w), from 0 to 1.

    Raises:
        ValueError: spandrel is not here, or knows no such network, or it does something else.
        RuntimeError: the weights do not fit together.
    """
    import_spandrel()
    import spandrel

    try:
        found = spandrel.ModelLoader().load_from_state_dict(weights)
    except spandrel.UnsupportedModelError:
        raise ValueError("spandrel does not know its architecture") from None
    if not isinstance(found, spandrel.ImageModelDescriptor) or found.output_channels != 3:
        raise ValueError("it does not make pictures of red, green and blue larger")
    return found


def import_spandrel() -> None:
    """Import spandrel, which takes a moment, when it is first needed.

    Raises:
        ValueError: it is not installed.
    """
    if find_spec("spandrel") is None:
        raise ValueError("spandrel is not installed")
    with _empty_torchvision():
        importlib.import_module("spandrel")


@contextmanager
def _empty_torchvision() -> Iterator[None]:
    """Empty modules by torchvision's names, where there is none, while spandrel is imported."""
    if "spandrel" in sys.modules or find_spec("torchvision") is not None:
        yield
        return
    for name, members in TORCHVISION.items():
        module = ModuleType(name)
        module.__dict__.update(dict.fromkeys(members))
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in TORCHVISION:
            del sys.modules[name]
