"""Readies a loaded model for this machine: lays its weights out, and measures its calls."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from darkroom.engine import costs, packing
from darkroom.engine.base import EngineJob
from darkroom.engine.costs import Costs
from darkroom.engine.denoiser import collate, map_tensors
from darkroom.engine.families.unet import UNetFamily
from darkroom.engine.sample import Sample
from darkroom.requests import RESOLVED, Task
from darkroom.responses import ModelInfo


def warm_up(family: UNetFamily, info: ModelInfo, clock: Callable[[], float]) -> Costs:
    """Pack the weights for this machine's CPU, and measure the seconds of UNet calls.

    Raises torch.OutOfMemoryError if not even one row fits.
    """
    sample = _sample(family, info)
    vae = family.vae
    _, _, height, width = sample.latents.shape
    pixels = sample.latents.new_zeros(1, 3, height * vae.factor, width * vae.factor)

    def finish() -> None:
        if family.device.type == "cuda":
            torch.cuda.synchronize()

    def denoise(rows: int) -> None:
        """A UNet call of so many rows, from beginning to end."""
        doubled = collate([sample] * rows, [sample.model_input] * rows)  # guidance takes two each
        family.denoiser.predict(map_tensors(doubled, lambda value: value[:rows]), rows)
        finish()

    family.unet.to(memory_format=torch.channels_last)
    packing.pack(family.unet, lambda: denoise(2))
    packing.pack(vae.model.decoder, lambda: vae.decode(sample.latents))
    packing.pack(vae.model.encoder, lambda: vae.moments(pixels))
    vae.decode(sample.latents)
    finish()
    return costs.measure(denoise, clock, height * width)


def _sample(family: UNetFamily, info: ModelInfo) -> Sample:
    """One guided image at the model's default size, of the first task that it can do."""
    task = info.tasks[0]
    size = (info.defaults.width, info.defaults.height)
    fields: dict[str, Any] = {
        "model": info.name,
        "prompt": "",
        "width": size[0],
        "height": size[1],
        "num_inference_steps": 1,
        "guidance_scale": 2.0,
        "seed": 0,
        "scheduler": "ddim",
    }
    if task is not Task.TXT2IMG:
        fields |= {"image": "image:none", "strength": 1.0}
    if task is Task.INPAINT:
        fields |= {"mask_image": "image:none", "keep_unmasked": False}
    request = RESOLVED[task](**fields)
    job = EngineJob("warmup", request, Image.new("RGB", size), Image.new("L", size, 255))
    return family.prepare([job])["warmup"][0]
