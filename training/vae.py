"""The variational autoencoder: 128×128×3 pixels to a 16×16×4 latent and back.

Trained by the evidence lower bound: a reconstruction term (L1 of pixels, of their differences,
which keeps edges, and of 4×4 means) plus the Kullback–Leibler divergence of the reparameterised
posterior from a unit Gaussian (Kingma and Welling, arXiv 1312.6114).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F
from tqdm import trange

from training import loop
from training.captions import Scene
from training.data import SIZE
from training.pictures import Pictures, thumbnail

STEPS = 10_000
WHOLE_SHARE = 0.15  # the last steps are on whole pictures, so that the borders are right too
CROP_BATCH, WHOLE_BATCH, CROP = 16, 8, 64
ADAM_RATE = 5e-4
KL_WEIGHT = 3e-4
EDGE_WEIGHT = 0.5
MEANS_WEIGHT = 0.5
DECAY = 0.998
ENCODED_TOGETHER = {"cpu": 4, "cuda": 100}  # few pictures stay in a CPU's caches


def build() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=SIZE,
        latent_channels=4,
        block_out_channels=(32, 64, 96, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
    )


def reconstruction(decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 of pixels, of horizontal and vertical differences, and of means. Both (B, 3, H, W)."""
    edges = F.l1_loss(decoded.diff(dim=-1), target.diff(dim=-1)) + F.l1_loss(
        decoded.diff(dim=-2), target.diff(dim=-2)
    )
    means = F.l1_loss(thumbnail(decoded), thumbnail(target))
    return F.l1_loss(decoded, target) + EDGE_WEIGHT * edges + MEANS_WEIGHT * means


def train(vae: AutoencoderKL, pictures: Pictures, runs: Path, budget_s: float | None) -> None:
    """Train, or finish training; leaves the averaged weights in `vae`."""
    vae.to(loop.device(), memory_format=torch.channels_last).train().requires_grad_(True)

    def loss(step: int, done: float) -> torch.Tensor:
        rng = np.random.default_rng((1, step))
        torch.manual_seed(step)  # of the posterior's sample
        whole = done >= 1 - WHOLE_SHARE
        batch, size = (WHOLE_BATCH, SIZE) if whole else (CROP_BATCH, CROP)
        target = torch.stack([pictures.random(rng, size) for _ in range(batch)])
        target = target.to(loop.device(), memory_format=torch.channels_last)
        with loop.mixed_precision():
            posterior = vae.encode(target).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return reconstruction(decoded.float(), target) + KL_WEIGHT * kl

    average = loop.train(
        name="vae",
        modules={"vae": vae},
        loss=loss,
        steps=STEPS,
        adam_rate=ADAM_RATE,
        checkpoint=runs / "vae.pt",
        decay=DECAY,
        budget_s=budget_s,
    )
    vae.load_state_dict(average.weights["vae"])
    vae.eval().requires_grad_(False)


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Pictures, scenes: Sequence[Scene]) -> torch.Tensor:
    """The scenes' mean latents, (N, 4, 16, 16), as the autoencoder has them (not scaled)."""
    together = ENCODED_TOGETHER[vae.device.type]
    means = []
    for first in trange(0, len(scenes), together, desc="latents", mininterval=5):
        drawn = [pictures.scene(scene) for scene in scenes[first : first + together]]
        batch = torch.stack(drawn).to(vae.device, memory_format=torch.channels_last)
        with loop.mixed_precision():
            means.append(vae.encode(batch).latent_dist.mean.float())
    return torch.cat(means)
