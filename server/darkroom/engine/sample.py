"""One image being denoised."""

from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image


@dataclass
class Inpainting:
    """What repainting needs beside the latents. All on the model's device and dtype.

    Attributes:
        mask: (1, 1, h, w) in latent pixels; 1 is repainted.
        noise: (1, 4, h, w), drawn once; the kept part is noised with it at every step.
        image_latents: (1, 4, h, w), the source encoded; None for 9-channel UNets.
        masked_image_latents: (1, 4, h, w), the source without the masked part.
        source: the picture to put back where the mask is black; None leaves the VAE's version.
        mask_picture: L, the size of `source`.
        crop: left, top, right, bottom in `source` of the part being repainted, None for all.
    """

    mask: torch.Tensor
    noise: torch.Tensor
    image_latents: torch.Tensor | None
    masked_image_latents: torch.Tensor
    source: Image | None
    mask_picture: Image
    crop: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class Prediction:
    """What the noise predictor last said about a sample: enough to guess the finished picture."""

    model_input: torch.Tensor  # (1, C, h, w), scaled to unit variance
    output: torch.Tensor  # (1, C, h, w), after guidance
    timestep: torch.Tensor  # ()


@dataclass
class Sample:
    """One image being denoised, with everything that is its own.

    Attributes:
        index: of the image within its job.
        seed: of its generator.
        latents: (1, C, h, w), C from the VAE, h and w an eighth of the pixels for SD.
        scheduler: its own instance, timesteps set.
        timesteps: (n,), those still to do at the start; shorter than asked for when strength < 1.
        generator: on the CPU, so that a seed means the same on every device.
        prompt_embeds: (1, tokens, dim).
        negative_prompt_embeds: the same shape; None when guidance is off.
        guidance_scale: weight of the prompt against the negative prompt.
        step_options: extra arguments of `scheduler.step`.
        inpainting: None unless inpainting.
        step: how many timesteps are done.
    """

    index: int
    seed: int
    latents: torch.Tensor
    scheduler: Any
    timesteps: torch.Tensor
    generator: torch.Generator
    prompt_embeds: torch.Tensor
    negative_prompt_embeds: torch.Tensor | None
    guidance_scale: float
    step_options: dict[str, Any]
    inpainting: Inpainting | None = None
    step: int = 0
    prediction: Prediction | None = None

    @property
    def rows(self) -> int:
        """Rows it contributes to a UNet call: guidance takes two."""
        return 1 if self.negative_prompt_embeds is None else 2

    @property
    def denoised(self) -> bool:
        return self.step >= len(self.timesteps)

    @property
    def timestep(self) -> torch.Tensor:
        """The timestep to do next, ()."""
        return self.timesteps[self.step]
