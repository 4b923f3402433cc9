"""One image being denoised by a UNet."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from PIL.Image import Image

from darkroom.catalog import schedulers
from darkroom.engine.adapters import NONE, LoraSet
from darkroom.engine.explain.recorder import Moment, Recorder
from darkroom.engine.prompts import Conditioning


def build_scheduler(name: str, model_config: dict[str, Any]) -> Any:
    """A diffusers `SchedulerMixin` for one image; it keeps state and cannot be shared.

    The noise schedule and prediction type of the model's own scheduler configuration carry over.

    Raises:
        UnknownSchedulerError: the catalog has no such name.
    """
    entry, spacing = schedulers.find(name)
    options = entry.options | (schedulers.SPACINGS[spacing] if spacing else {})
    return getattr(diffusers, f"{entry.cls}Scheduler").from_config(model_config, **options)


@dataclass(frozen=True)
class Row:
    """The conditioning of one row of a UNet call."""

    conditioning: Conditioning
    time_ids: torch.Tensor | None = None  # (1, 5 or 6), SDXL's sizes and crop, or score


@dataclass
class Inpainting:
    """The inputs of inpainting beside the latents, on the model's device and dtype.

    4-channel UNets use the source's latents, 9-channel ones those of the source without the
    masked part.
    """

    mask: torch.Tensor  # (1, 1, h, w) in latent pixels; 1 is repainted
    noise: torch.Tensor  # (1, 4, h, w), drawn once; noises the kept part at every step
    image_latents: torch.Tensor | None  # (1, 4, h, w)
    masked_image_latents: torch.Tensor | None  # (1, 4, h, w)
    source: Image | None  # put back where the mask is black; None leaves the VAE's version
    mask_picture: Image  # L, the size of `source`
    crop: tuple[int, int, int, int] | None  # what of `source` is repainted; None for all


@dataclass(frozen=True)
class Prediction:
    """The last noise prediction of a sample, from which the finished image can be estimated."""

    model_input: torch.Tensor  # (1, C, h, w), scaled to unit variance
    output: torch.Tensor  # (1, C, h, w), after guidance
    timestep: torch.Tensor  # ()


@dataclass(eq=False)
class UNetSample:
    """One image being denoised, with everything that is its own; a `Sample`."""

    index: int
    seed: int
    area: int  # pixels of the image
    latents: torch.Tensor  # (1, C, h, w), C from the VAE, h and w an eighth of the pixels for SD
    scheduler: Any  # its own instance, timesteps set
    timesteps: torch.Tensor  # (n,), all that it takes; fewer than asked for when strength < 1
    generator: torch.Generator  # on the CPU, so that a seed means the same on every device
    rows: tuple[Row, ...]  # one, or with guidance two: the negative prompt's, then the prompt's
    guidance_scale: float
    guidance_rescale: float = 0.0  # 0 to 1: see arXiv 2305.08891, section 3.4
    step_options: dict[str, Any] = field(default_factory=dict)  # of `scheduler.step`
    guidance_embedding: torch.Tensor | None = None  # (1, dim), for UNets that take it as an input
    inpainting: Inpainting | None = None
    loras: LoraSet = NONE
    exact: bool = False  # its calls give the same bytes whatever else was made before
    step: int = 0  # how many timesteps are done
    prediction: Prediction | None = None  # the last one
    deep: torch.Tensor | None = None  # (1 or 2, C', h', w'), the UNet's deep part, for DeepCache
    skipped: int = 0  # calls of its key without it since its last step
    recorder: Recorder | None = None  # of what explains the image, if that was asked for

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    @property
    def denoised(self) -> bool:
        return self.step >= self.steps

    @property
    def row_count(self) -> int:
        return len(self.rows)

    @property
    def form(self) -> Hashable:
        return (tuple(self.latents.shape[1:]), self.loras.apart, self.recorder is not None)

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

        The model's input is (1, C, h, w), as the UNet saw it; its output (1 or 2, C, h, w), by row.
        """
        output = predicted
        if len(self.rows) == 2:
            unconditional, conditional = predicted.chunk(2)
            output = unconditional + self.guidance_scale * (conditional - unconditional)
            if self.guidance_rescale > 0:
                output = rescale_noise_cfg(output, conditional, self.guidance_rescale)
        timestep = self.timestep
        self.prediction = Prediction(model_input, output, timestep)
        self.latents = self.scheduler.step(
            output, timestep, self.latents, **self.step_options, return_dict=False
        )[0].to(self.latents.dtype)
        if self.recorder is not None:
            self.recorder.step(self.step, self.steps, self._moment)
        self.step += 1
        self.skipped = 0
        inpainting = self.inpainting
        if inpainting is not None and inpainting.image_latents is not None:
            kept, mask = inpainting.image_latents, inpainting.mask
            if not self.denoised:
                noise = inpainting.noise
                kept = self.scheduler.add_noise(kept, noise, self.timestep.reshape(1))
            self.latents = (1 - mask) * kept + mask * self.latents

    def predicted_latents(self) -> torch.Tensor | None:
        """The finished latents by the last prediction (x₀), (1, C, h, w); None before the first.

        The UNet's input is x = sqrt(ā)·x₀ + sqrt(1−ā)·ε whatever the scheduler, because
        `scale_model_input` brings it there; so this needs nothing of the scheduler but ā.
        """
        last = self.prediction
        if last is None:
            return None
        signal = self._kept(last)
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

    def _kept(self, last: Prediction) -> torch.Tensor:
        """The share of the variance of the UNet's input that is the picture's (ā), ()."""
        alphas = self.scheduler.alphas_cumprod
        position = int(last.timestep.round().clamp(0, len(alphas) - 1))
        kept: torch.Tensor = alphas[position].to(last.output).clamp(min=1e-6)
        return kept

    def _moment(self) -> Moment:
        """What the last prediction says, to explain it."""
        last, guess = self.prediction, self.predicted_latents()
        assert last is not None
        assert guess is not None
        kept = self._kept(last)
        signal, noise = kept.sqrt(), (1 - kept).sqrt()
        found = (last.model_input - signal * guess) / noise.clamp(min=1e-6)
        parts = (float(last.timestep), float(signal), float(noise))
        return Moment(*parts, last.model_input, found, guess)
