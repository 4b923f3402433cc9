"""A job to warm a model up and to measure its calls."""

from typing import Any

import torch
from PIL import Image

from darkroom.engine.base import EngineJob
from darkroom.engine.denoiser import collate, map_tensors
from darkroom.engine.families.unet import UNetFamily
from darkroom.engine.sample import Sample
from darkroom.requests import RESOLVED, Task
from darkroom.responses import ModelInfo


class Warmup:
    """One guided image at the model's default size, of the first task that it can do."""

    def __init__(self, family: UNetFamily, info: ModelInfo) -> None:
        self._family = family
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
        self.sample: Sample = family.prepare([job])["warmup"][0]

    @property
    def area(self) -> int:
        """Latent pixels."""
        return self.sample.latents[0, 0].numel()

    def denoise(self, rows: int) -> None:
        """A UNet call of so many rows, from beginning to end."""
        samples = [self.sample] * rows
        doubled = collate(samples, [self.sample.model_input] * rows)  # guidance takes two each
        call = map_tensors(doubled, lambda value: value[:rows])
        self._family.denoiser.predict(call, rows)
        self._finish()

    def decode(self) -> None:
        self._family.vae.decode(self.sample.latents)
        self._finish()

    def encode(self) -> None:
        factor = self._family.vae.factor
        height, width = (side * factor for side in self.sample.latents.shape[2:])
        self._family.vae.moments(self.sample.latents.new_zeros(1, 3, height, width))
        self._finish()

    def _finish(self) -> None:
        if self._family.device.type == "cuda":
            torch.cuda.synchronize()
