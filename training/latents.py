"""The latents of scenes, encoded once."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from training import loop, vae
from training.captions import Scene
from training.colours import BACKGROUNDS
from training.pictures import Pictures

BACKDROPS = tuple(BACKGROUNDS)


class Latents:
    """Scaled latents of scenes, of unit variance.

    Args:
        autoencoder: trained.
        pictures: draws the scenes.
        scenes: all that will be asked for.
        cache: file for their latents.
    """

    def __init__(
        self, autoencoder: AutoencoderKL, pictures: Pictures, scenes: Sequence[Scene], cache: Path
    ) -> None:
        if not cache.exists():
            autoencoder.to(loop.device(), memory_format=torch.channels_last).eval()
            loop.save(cache, vae.encode(autoencoder, pictures, scenes).half().cpu())
        self._latents = torch.load(cache, weights_only=True)  # (scenes, 4, 16, 16)
        self._numbers = {scene: number for number, scene in enumerate(scenes)}
        self.scale = 1 / self._latents.float().std().item()

    def of(self, scenes: Sequence[Scene]) -> torch.Tensor:
        """Returns (N, 4, 16, 16), scaled, on the device."""
        found = self._latents[[self._numbers[scene] for scene in scenes]]
        return (found.float() * self.scale).to(loop.device())
