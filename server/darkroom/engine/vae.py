"""Pixels to latents and back, several at a time."""

from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution


class Vae:
    """The autoencoder of one model.

    Args:
        model: a diffusers `AutoencoderKL`.
        device: that computes.
        dtype: of latents.
        tile_side: pictures with a longer side are coded in overlapping tiles of this many pixels,
            which bounds the memory and may leave faint seams.
        tiny: an `AutoencoderTiny` that decodes instead, faster and rougher.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        dtype: torch.dtype,
        tile_side: int,
        tiny: Any | None = None,
    ) -> None:
        # SDXL's first VAE overflows in half precision and says so in its configuration
        # (https://huggingface.co/madebyollin/sdxl-vae-fp16-fix).
        overflows = dtype == torch.float16 and model.config.get("force_upcast", True)
        self.model = model.to(torch.float32) if overflows else model
        self.tiny = tiny
        self.factor = 2 ** (len(model.config.block_out_channels) - 1)
        self.tile(tile_side)
        self._device, self._dtype = device, dtype

    def tile(self, side: int) -> None:
        """Code in tiles of `side` pixels from now on, where pictures are larger."""
        side = max(side, 8 * self.factor)
        self.model.enable_tiling()
        self.model.tile_sample_min_size = side
        self.model.tile_latent_min_size = side // self.factor

    @property
    def tile_side(self) -> int:
        side: int = self.model.tile_sample_min_size
        return side

    def moments(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode without drawing.

        Args:
            pixels: (n, 3, H, W) in [-1, 1].

        Returns:
            (n, 2C, h, w), mean and log variance of each latent.
        """
        pixels = pixels.to(self._device, self.model.dtype)
        parameters: torch.Tensor = self.model.encode(pixels).latent_dist.parameters
        return parameters

    def draw(self, moments: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One draw from `moments` (1, 2C, h, w), scaled for the UNet: (1, C, h, w)."""
        drawn: torch.Tensor = (
            DiagonalGaussianDistribution(moments).sample(generator).to(self._dtype)
        )
        spread = self._spread(drawn)
        if spread is not None:
            mean, std = spread
            drawn = (drawn - mean) * self.model.config.scaling_factor / std
        else:
            drawn = self.model.config.scaling_factor * drawn
        return drawn

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels (n, 3, H, W) in about [-1, 1], of latents (n, C, h, w) as the UNet leaves them."""
        if self.tiny is not None:
            latents = (latents / self.tiny.config.scaling_factor).to(self.tiny.dtype)
            tiny_pixels: torch.Tensor = self.tiny.decode(latents, return_dict=False)[0]
            return tiny_pixels
        latents = latents.to(self.model.dtype)
        spread = self._spread(latents)
        if spread is not None:
            mean, std = spread
            latents = latents * std / self.model.config.scaling_factor + mean
        else:
            latents = latents / self.model.config.scaling_factor
        pixels: torch.Tensor = self.model.decode(latents, return_dict=False)[0]
        return pixels

    def _spread(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Mean and deviation of the latents, (1, C, 1, 1) each, where the VAE names them."""
        config = self.model.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            return None
        shape = (1, -1, 1, 1)
        return torch.tensor(mean).view(shape).to(like), torch.tensor(std).view(shape).to(like)
