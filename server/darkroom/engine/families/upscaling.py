"""Pictures made larger by a network, a tile at a time.

A network of the ESRGAN family takes memory by the pixel, so a picture goes through it in tiles
that overlap. One tile is one step: the steps of others go on between two, and cancelling takes
effect at the next one.
"""

import numpy as np
import structlog
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from darkroom.catalog.upscalers import UpscalerEntry
from darkroom.engine import failures
from darkroom.engine.base import EngineJob
from darkroom.engine.families import spandrel_library
from darkroom.engine.families.spandrel_library import Network
from darkroom.images import tiling
from darkroom.requests import Upscale

log = structlog.get_logger()

SMALLEST_TILE = 32  # pixels; below this a network sees too little of the picture


class Upscaler:
    """A loaded network.

    Args:
        network: of spandrel, on its device.
        device: of the network.
        dtype: of its weights.
    """

    def __init__(self, network: Network, device: torch.device, dtype: torch.dtype) -> None:
        self._network = network
        self._device = device
        self._dtype = dtype
        self._largest = tiling.TILE  # what of a tile goes through at once; shrinks by running out

    @property
    def scale(self) -> int:
        """How many times larger it makes a picture."""
        return self._network.scale

    @property
    def weight_bytes(self) -> int:
        parameters = self._network.model.parameters()
        return sum(parameter.numel() * parameter.element_size() for parameter in parameters)

    def start(self, job: EngineJob) -> "Enlargement":
        """Take a job on; nothing is computed yet.

        Raises:
            ValueError: it is no upscaling of a picture.
        """
        if job.image is None or not isinstance(job.request, Upscale):
            raise ValueError("there is no picture to make larger")
        return Enlargement(self, job.image, job.request.size(job.image.size))

    def enlarge(self, picture: Image.Image) -> Image.Image:
        """A picture `scale` times as large. What does not fit in memory goes through in parts.

        Args:
            picture: RGB, no larger than a tile.

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
            if not failures.is_out_of_memory(error) or half < SMALLEST_TILE:
                raise
            self._largest = half
        # Not while the error is handled: it holds what the call had taken.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return self.enlarge(picture)

    def _call(self, picture: Image.Image) -> Image.Image:
        pixels = torch.from_numpy(np.array(picture.convert("RGB")))  # (h, w, 3), 0 to 255
        inputs = pixels.permute(2, 0, 1).unsqueeze(0).to(self._device).to(self._dtype) / 255
        made = self._network(inputs)  # (1, 3, scale·h, scale·w), 0 to 1
        rounded = (made[0].float().nan_to_num() * 255).round().clamp(0, 255).to(torch.uint8)
        return Image.fromarray(rounded.permute(1, 2, 0).cpu().contiguous().numpy())


class Enlargement:
    """A picture on its way through an upscaler: see `Resumable`.

    Args:
        upscaler: makes its tiles larger.
        picture: RGB.
        size: that it is brought to at the end, width and height in pixels.
    """

    exclusive = False  # nothing of a job is kept in the network
    images = 1

    def __init__(self, upscaler: Upscaler, picture: Image.Image, size: tuple[int, int]) -> None:
        self._upscaler = upscaler
        self._picture = picture
        self._size = size
        self._tiles = tiling.for_upscaling(picture.size)
        self._pieces: list[Image.Image] = []
        self.index = 0

    @property
    def step(self) -> int:
        """How many tiles are done."""
        return len(self._pieces)

    @property
    def steps(self) -> int:
        return len(self._tiles.boxes)

    def resume(self) -> Image.Image | None:
        """Make one more tile larger; the picture, when it was the last.

        Raises:
            torch.OutOfMemoryError: it does not fit, however small.
        """
        box = self._tiles.boxes[self.step]
        self._pieces.append(self._upscaler.enlarge(self._picture.crop(box)))
        if self.step < self.steps:
            return None
        whole = tiling.join(self._pieces, self._tiles.enlarged(self._upscaler.scale))
        self.index = 1
        if whole.size == self._size:
            return whole
        return whole.resize(self._size, Image.Resampling.LANCZOS)

    def close(self) -> None:
        """Does nothing: no work runs between two calls of `resume`."""


def load(entry: UpscalerEntry, device: torch.device, dtype: torch.dtype) -> Upscaler:
    """Load a network.

    Args:
        entry: which.
        device: for it.
        dtype: for it, if it can be used in that; else it is float32.

    Raises:
        OSError: it cannot be loaded; says why.
    """
    name = entry.path.name
    try:
        network = spandrel_library.build(load_file(entry.path))
    except (ValueError, SafetensorError) as error:
        raise OSError(f"upscaler {name} cannot be loaded: {error}") from None
    except (RuntimeError, LookupError, TypeError) as error:
        if failures.is_out_of_memory(error):
            raise
        log.warning("upscaler not loaded", file=name, exc_info=error)
        raise OSError(
            f"upscaler {name} cannot be loaded: its tensors do not fit together"
        ) from None
    if network.scale != entry.info.scale:
        raise OSError(f"upscaler {name} cannot be loaded: it is not what its header says")
    able = {torch.float16: network.supports_half, torch.bfloat16: network.supports_bfloat16}
    chosen = dtype if able.get(dtype, True) else torch.float32
    network.model.eval().requires_grad_(requires_grad=False)
    network.to(device, chosen)
    return Upscaler(network, device, chosen)
