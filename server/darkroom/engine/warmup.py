"""A job to warm a model up and to measure its calls."""

import torch
from PIL import Image

from darkroom.engine.base import EngineJob
from darkroom.engine.denoiser import collate, map_tensors
from darkroom.engine.families.unet import UNetFamily
from darkroom.engine.sample import Sample
from darkroom.requests import ResolvedRequest, Task
from darkroom.responses import ModelInfo


class Warmup:
    """One guided image at the model's default size, of the first task that it can do."""

    def __init__(self, family: UNetFamily, info: ModelInfo) -> None:
        self._family = family
        task = info.tasks[0]
        size = (info.defaults.width, info.defaults.height)
        request = ResolvedRequest(
            task=task,
            model=info.name,
            prompt="",
            negative_prompt="",
            width=size[0],
            height=size[1],
            num_inference_steps=1,
            guidance_scale=2.0,
            num_images=1,
            seed=0,
            scheduler="ddim",
            image=None if task is Task.TXT2IMG else "image:none",
            strength=None if task is Task.TXT2IMG else 1.0,
        )
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
