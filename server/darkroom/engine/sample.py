"""One image being denoised."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from PIL.Image import Image

from darkroom.engine.prompts import Conditioning


@dataclass(frozen=True)
class Row:
    """The conditioning of one row of a UNet call.

    Attributes:
        conditioning: the encoded prompt.
        time_ids: (1, 5 or 6) sizes and crop, or score, that SDXL is conditioned on; else None.
    """

    conditioning: Conditioning
    time_ids: torch.Tensor | None = None


@dataclass
class Inpainting:
    """The inputs of inpainting beside the latents, on the model's device and dtype.

    Attributes:
        mask: (1, 1, h, w) in latent pixels; 1 is repainted.
        noise: (1, 4, h, w), drawn once; the kept part is noised with it at every step.
        image_latents: (1, 4, h, w), the source encoded; None for 9-channel UNets.
        masked_image_latents: (1, 4, h, w), the source without the masked part, for 9-channel
            UNets; else None.
        source: the picture to put back where the mask is black; None leaves the VAE's version.
        mask_picture: L, the size of `source`.
        crop: left, top, right, bottom in `source` of the part being repainted, None for all.
    """

    mask: torch.Tensor
    noise: torch.Tensor
    image_latents: torch.Tensor | None
    masked_image_latents: torch.Tensor | None
    source: Image | None
    mask_picture: Image
    crop: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class Prediction:
    """The last noise prediction of a sample, from which the finished image can be estimated."""

    model_input: torch.Tensor  # (1, C, h, w), scaled to unit variance
    output: torch.Tensor  # (1, C, h, w), after guidance
    timestep: torch.Tensor  # ()


@dataclass(frozen=True)
class Key:
    """Samples with equal keys may share a UNet call.

    Attributes:
        model: by name.
        shape: (C, h, w) of the latents.
        loras: the active set with its scales.
        exclusive: id of a job whose samples share no call, not even with each other; else None.
    """

    model: str
    shape: tuple[int, ...]
    loras: Hashable = ()
    exclusive: str | None = None


@dataclass(eq=False)
class Sample:
    """One image being denoised, with everything that is its own.

    Attributes:
        latents: (1, C, h, w), C from the VAE, h and w an eighth of the pixels for SD.
        scheduler: its own instance, timesteps set.
        timesteps: (n,), those still to do at the start; shorter than asked for when strength < 1.
        generator: on the CPU, so that a seed means the same on every device.
        rows: one, or with guidance two: the negative prompt's, then the prompt's.
        guidance_scale: weight of the prompt against the negative prompt.
        guidance_rescale: 0 to 1, how far the guided prediction takes the standard deviation of
            the prompt's own (arXiv 2305.08891, section 3.4).
        step_options: extra arguments of `scheduler.step`.
        guidance_embedding: (1, dim), for UNets distilled to take the guidance as an input.
        step: how many timesteps are done.
        prediction: the last one; None before the first step.
        deep: (1 or 2, C', h', w'), the last output of the UNet's deep part, for DeepCache.
        skipped: calls of its key without it since its last step.
    """

    index: int
    seed: int
    latents: torch.Tensor
    scheduler: Any
    timesteps: torch.Tensor
    generator: torch.Generator
    rows: tuple[Row, ...]
    guidance_scale: float
    guidance_rescale: float = 0.0
    step_options: dict[str, Any] = field(default_factory=dict)
    guidance_embedding: torch.Tensor | None = None
    inpainting: Inpainting | None = None
    step: int = 0
    prediction: Prediction | None = None
    deep: torch.Tensor | None = None
    skipped: int = 0

    @property
    def denoised(self) -> bool:
        return self.step >= len(self.timesteps)

    @property
    def timestep(self) -> torch.Tensor:
        """The next timestep, ()."""
        return self.timesteps[self.step]

    @property
    def model_input(self) -> torch.Tensor:
        """The UNet's input, (1, C, h, w), without inpainting's extra channels."""
        scaled: torch.Tensor = self.scheduler.scale_model_input(self.latents, self.timestep)
        return scaled

    def advance(self, model_input: torch.Tensor, predicted: torch.Tensor) -> None:
        """Apply guidance and one step of the sample's own scheduler.

        Args:
            model_input: (1, C, h, w), as the UNet saw it.
            predicted: (1 or 2, C, h, w), an output a row.
        """
        if len(self.rows) == 2:
            unconditional, conditional = predicted.chunk(2)
            output = unconditional + self.guidance_scale * (conditional - unconditional)
            if self.guidance_rescale > 0:
                output = rescale_noise_cfg(output, conditional, self.guidance_rescale)
        else:
            output = predicted
        timestep = self.timestep
        self.prediction = Prediction(model_input, output, timestep)
        self.latents = self.scheduler.step(
            output, timestep, self.latents, **self.step_options, return_dict=False
        )[0].to(self.latents.dtype)
        self.step += 1
        self.skipped = 0
        if self.inpainting is not None and self.inpainting.image_latents is not None:
            self._keep_unmasked(self.inpainting.mask, self.inpainting.image_latents)

    def _keep_unmasked(self, mask: torch.Tensor, kept: torch.Tensor) -> None:
        assert self.inpainting is not None
        if not self.denoised:
            noise = self.inpainting.noise
            kept = self.scheduler.add_noise(kept, noise, self.timestep.reshape(1))
        self.latents = (1 - mask) * kept + mask * self.latents

    def predicted_latents(self) -> torch.Tensor | None:
        """The finished latents by the last prediction (x₀); None before the first step.

        The UNet's input is x = sqrt(ā)·x₀ + sqrt(1−ā)·ε whatever the scheduler, because
        `scale_model_input` brings it there; so this needs nothing of the scheduler but ā.

        Returns:
            (1, C, h, w), scaled as the UNet sees them.
        """
        last = self.prediction
        if last is None:
            return None
        alphas = self.scheduler.alphas_cumprod
        position = int(last.timestep.round().clamp(0, len(alphas) - 1))
        signal = alphas[position].to(last.output).clamp(min=1e-6)
        noise = (1 - signal).sqrt() * last.output
        latents: torch.Tensor
        match self.scheduler.config.prediction_type:
            case "v_prediction":
                latents = signal.sqrt() * last.model_input - noise
            case "sample":
                latents = last.output
            case _:
                latents = (last.model_input - noise) / signal.sqrt()
        return latents
