"""The latents of scenes, encoded once where they come again."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from training import loop, vae
from training.captions import Scene, single
from training.colours import BACKGROUNDS
from training.pictures import Pictures

BACKDROPS = tuple(BACKGROUNDS)


class Latents:
    """Scaled latents of scenes, of unit variance.

    A single thing on a flat colour is looked up; other scenes are encoded when they are asked for.

    Args:
        autoencoder: trained.
        pictures: draws the scenes.
        subjects: their number.
        cache: file for the latents of single things.
    """

    def __init__(
        self, autoencoder: AutoencoderKL, pictures: Pictures, subjects: int, cache: Path
    ) -> None:
        self._vae = autoencoder.to(loop.device()).eval()
        self._pictures = pictures
        if not cache.exists():
            singles = [
                vae.encode(
                    self._vae,
                    pictures,
                    [single(subject, colour) for colour in BACKDROPS],
                ).half()
                for subject in tqdm(range(subjects), "latents", mininterval=5)
            ]
            loop.save(cache, torch.stack(singles).cpu())
        self._singles = torch.load(cache, weights_only=True)  # (subjects, 10, 4, 16, 16)
        self.scale = 1 / self._singles.float().std().item()

    def of(self, scenes: list[Scene]) -> torch.Tensor:
        """Returns (N, 4, 16, 16), scaled, on the device."""
        found = torch.empty(len(scenes), *self._singles.shape[2:])
        others = []
        for number, scene in enumerate(scenes):
            subject, colour = scene.things[0].subject, scene.background[0]
            if scene == single(subject, colour):
                found[number] = self._singles[subject, BACKDROPS.index(colour)]
            else:
                others.append(number)
        if others:
            encoded = vae.encode(self._vae, self._pictures, [scenes[n] for n in others])
            found[others] = encoded.cpu()
        return (found * self.scale).to(loop.device())
