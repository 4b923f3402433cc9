"""The latents of scenes, encoded once."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from training import loop, vae
from training.captions import Scene, halves
from training.colours import BACKGROUNDS
from training.pictures import Pictures

BACKDROPS = tuple(BACKGROUNDS)


class Latents:
    """Scaled latents of scenes, of unit variance.

    A pair's are put together of two halves, so that any two things can be shown side by side. What
    the autoencoder says of one half depends on the other one near the border alone.

    Args:
        autoencoder: trained.
        pictures: draws the scenes.
        scenes: all that will be asked for, but for pairs, of which the halves are there.
        cache: file for their latents.

    Raises:
        ValueError: the file has latents of other scenes.
    """

    def __init__(
        self, autoencoder: AutoencoderKL, pictures: Pictures, scenes: Sequence[Scene], cache: Path
    ) -> None:
        if not cache.exists():
            autoencoder.to(loop.device(), memory_format=torch.channels_last).eval()
            loop.save(cache, vae.encode(autoencoder, pictures, scenes).half().cpu())
        self._latents = torch.load(cache, weights_only=True)  # (scenes, 4, 16, 16)
        if len(self._latents) != len(scenes):
            raise ValueError(f"{cache} is of other scenes: delete it, and train from its beginning")
        self._numbers = {scene: number for number, scene in enumerate(scenes)}
        self.scale = 1 / self._latents.float().std().item()

    def of(self, scenes: Sequence[Scene]) -> torch.Tensor:
        """Returns (N, 4, 16, 16), scaled, on the device."""
        found = torch.stack([self._of(scene) for scene in scenes])
        return (found.float() * self.scale).to(loop.device())

    def _of(self, scene: Scene) -> torch.Tensor:
        parts = halves(scene)
        if parts is None:
            return self._latents[self._numbers[scene]]
        left, right = (self._latents[self._numbers[part]] for part in parts)
        middle = left.shape[-1] // 2
        return torch.cat([left[..., :middle], right[..., middle:]], dim=-1)
