"""Pixels to latents and back, several at a time."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from darkroom.engine.errors import NotFiniteError
from darkroom.engine.openvino.conversion import Conversion, Part


def tile(vae: Any, side: int) -> None:
    """Have a VAE of diffusers code larger pictures in tiles of about `side` pixels, if it can.

    Tiles overlap by a quarter. The side is lowered so that a quarter of it is whole in latents;
    otherwise diffusers lays the tiles out in steps of another length than it cuts them to.
    """
    if not hasattr(vae, "use_tiling"):
        return
    side = max(side // (4 * factor_of(vae)), 2) * 4 * factor_of(vae)
    accepted = inspect.signature(vae.enable_tiling).parameters
    sizes = {
        "tile_sample_min_height": side,
        "tile_sample_min_width": side,
        "tile_sample_stride_height": side * 3 // 4,
        "tile_sample_stride_width": side * 3 // 4,
    }
    vae.enable_tiling(**{name: size for name, size in sizes.items() if name in accepted})
    if hasattr(vae, "tile_sample_min_size"):
        vae.tile_sample_min_size = side
        vae.tile_latent_min_size = side // factor_of(vae)


def factor_of(vae: Any) -> int:
    """Pixels per latent pixel of a VAE of diffusers, along a side."""
    known = getattr(vae, "spatial_compression_ratio", None)
    return int(known or 2 ** (len(vae.config.block_out_channels) - 1))


def finite(vae: Any, code: Callable[[], Any]) -> Any:
    """What `code` makes with a VAE: a tensor, a tuple of one, or an output of diffusers.

    If it is not finite in half precision, the VAE works in float32 from now on.

    Raises:
        NotFiniteError: it is not finite in float32 either.
    """
    made = code()
    if not _is_finite(made) and vae.dtype != torch.float32:
        vae.to(torch.float32)
        made = code()
    if not _is_finite(made):
        raise NotFiniteError("VAE")
    return made


def _is_finite(made: Any) -> bool:
    if isinstance(made, tuple):
        made = made[0]
    if hasattr(made, "latent_dist"):
        made = made.latent_dist.parameters
    for name in ("sample", "latent"):
        made = made if torch.is_tensor(made) else getattr(made, name, made)
    return bool(made.isfinite().all())


class Vae:
    """The autoencoder of one model, a diffusers `AutoencoderKL`.

    Args:
        dtype: of latents.
        tile_side: pictures with a longer side are coded in overlapping tiles of this many pixels,
            which bounds the memory and may leave faint seams.
        tiny: an `AutoencoderTiny` that decodes instead, faster and rougher.
        conversion: whose decoder and encoder compute what they can, once they are there.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        dtype: torch.dtype,
        tile_side: int,
        tiny: Any | None = None,
        conversion: Conversion | None = None,
    ) -> None:
        config = model.config
        # SDXL's first VAE overflows in half precision and says so in its configuration
        # (https://huggingface.co/madebyollin/sdxl-vae-fp16-fix).
        overflows = dtype == torch.float16 and config.get("force_upcast", True)
        self.model = model.to(torch.float32) if overflows else model
        self.tiny = tiny
        self._parts: list[Part] = []
        if conversion is not None:
            model.decoder = Part(model.decoder, conversion, "decoder")
            model.encoder = Part(model.encoder, conversion, "encoder")
            self._parts = [model.decoder, model.encoder]
        self.factor = factor_of(model)
        self.tile(tile_side)
        self._device, self._dtype = device, dtype
        # Mean and deviation of the latents, (1, C or 1, 1, 1), where the VAE names them.
        mean, std = config.get("latents_mean"), config.get("latents_std")
        known = mean is not None and std is not None
        self._mean = torch.tensor(mean if known else [0.0]).view(1, -1, 1, 1)
        self._std = torch.tensor(std if known else [1.0]).view(1, -1, 1, 1)

    def tile(self, side: int) -> None:
        """Code in tiles of `side` pixels from now on, where pictures are larger."""
        tile(self.model, side)

    @contextmanager
    def exactly(self, exact: bool) -> Iterator[None]:
        """Compute with torch meanwhile, if `exact`, whatever was converted."""
        for part in self._parts:
            part.exact = exact
        try:
            yield
        finally:
            for part in self._parts:
                part.exact = False

    def moments(self, pixels: torch.Tensor) -> torch.Tensor:
        """Mean and log variance of the latents, (n, 2C, h, w); pixels (n, 3, H, W) in [-1, 1]."""
        vae = self.model
        encoded = finite(vae, lambda: vae.encode(pixels.to(self._device, vae.dtype)))
        parameters: torch.Tensor = encoded.latent_dist.parameters
        return parameters

    def draw(self, moments: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One draw from `moments` (1, 2C, h, w), scaled for the UNet: (1, C, h, w)."""
        drawn = DiagonalGaussianDistribution(moments).sample(generator).to(self._dtype)
        mean, std = self._mean.to(drawn), self._std.to(drawn)
        scaled: torch.Tensor = (drawn - mean) * self.model.config.scaling_factor / std
        return scaled

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels (n, 3, H, W) in about [-1, 1], of latents (n, C, h, w) as the UNet leaves them.

        If they are not finite in half precision, they are made in float32, from now on.

        Raises:
            NotFiniteError: they are not finite in float32 either.
        """
        vae = self.model if self.tiny is None else self.tiny
        pixels: torch.Tensor = finite(vae, lambda: self._decode(vae, latents))
        return pixels

    def _decode(self, vae: Any, latents: torch.Tensor) -> torch.Tensor:
        if self.tiny is None:
            latents = latents.to(vae.dtype)
            mean, std = self._mean.to(latents), self._std.to(latents)
            latents = latents * std / vae.config.scaling_factor + mean
        else:
            latents = (latents / vae.config.scaling_factor).to(vae.dtype)
        pixels: torch.Tensor = vae.decode(latents, return_dict=False)[0]
        return pixels
