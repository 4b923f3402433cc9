"""The variational autoencoder: 128×128×3 pixels to a 16×16×4 latent and back.

Trained by the evidence lower bound: a reconstruction term (L1 on pixels and on their
differences, which keeps edges) plus the Kullback–Leibler divergence of the reparameterised
posterior from a unit Gaussian (Kingma and Welling, arXiv 1312.6114).
"""

from pathlib import Path

import numpy as np
import skimage.data
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import nn
from torch.nn import functional as F

from training import loop
from training.data import BACKGROUNDS, SIZE, Subject, compose

CROP_STEPS = 5400  # on 64-pixel crops: four times the pictures a second
WHOLE_STEPS = 400  # then on whole pictures, so that the borders are right too
CROP_BATCH, WHOLE_BATCH, CROP = 16, 8, 64
PEAK_LR = 8e-4
KL_WEIGHT = 1e-3
GRADIENT_WEIGHT = 0.5
PHOTO_SHARE = 0.25  # of pictures: img2img and inpaint encode photographs

PHOTOS = ("astronaut", "coffee", "rocket", "grass", "gravel", "brick", "hubble_deep_field")


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


def photographs() -> list[Image.Image]:
    """The public-domain photographs that ship inside scikit-image."""
    return [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in PHOTOS]


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """Returns (3, H, W) in [-1, 1]."""
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32))  # (H, W, 3)
    return pixels.permute(2, 0, 1) / 127.5 - 1


class Pictures:
    """Draws training pictures: subjects anywhere on any colour, and photographs."""

    def __init__(self, subjects: tuple[Subject, ...]) -> None:
        self._subjects = [subject.rgba() for subject in subjects]
        self._photos = photographs()

    def draw(self, rng: np.random.Generator, size: int) -> torch.Tensor:
        """Returns (3, size, size) in [-1, 1]."""
        if rng.random() < PHOTO_SHARE:
            whole = self._photos[rng.integers(len(self._photos))]
            side = int(rng.integers(SIZE, min(whole.size) + 1))
            left = int(rng.integers(whole.width - side + 1))
            top = int(rng.integers(whole.height - side + 1))
            box = (left, top, left + side, top + side)
            picture = whole.resize((SIZE, SIZE), Image.Resampling.BOX, box)
        else:
            picture = compose(
                self._subjects[rng.integers(len(self._subjects))],
                list(BACKGROUNDS.values())[rng.integers(len(BACKGROUNDS))],
                scale=rng.uniform(0.7, 1.0),
                flip=bool(rng.random() < 0.5),
            )
        left, top = (int(v) for v in rng.integers(SIZE - size + 1, size=2))
        return to_tensor(picture.crop((left, top, left + size, top + size)))


def reconstruction(decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 of pixels, and of horizontal and vertical differences. Both (B, 3, H, W)."""
    edges = F.l1_loss(decoded.diff(dim=-1), target.diff(dim=-1)) + F.l1_loss(
        decoded.diff(dim=-2), target.diff(dim=-2)
    )
    return F.l1_loss(decoded, target) + GRADIENT_WEIGHT * edges


def train(subjects: tuple[Subject, ...], runs: Path) -> AutoencoderKL:
    """Train, or finish training, and return the averaged weights."""
    torch.manual_seed(0)
    vae = build().to(loop.device(), memory_format=torch.channels_last)
    pictures = Pictures(subjects)

    def loss(step: int) -> torch.Tensor:
        rng = np.random.default_rng((1, step))
        batch, size = (CROP_BATCH, CROP) if step < CROP_STEPS else (WHOLE_BATCH, SIZE)
        target = torch.stack([pictures.draw(rng, size) for _ in range(batch)])
        target = target.to(loop.device(), memory_format=torch.channels_last)
        with loop.mixed_precision():
            posterior = vae.encode(target).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return reconstruction(decoded.float(), target) + KL_WEIGHT * kl

    modules: dict[str, nn.Module] = {"vae": vae}
    average = loop.train(
        name="vae",
        modules=modules,
        loss=loss,
        steps=CROP_STEPS + WHOLE_STEPS,
        peak_lr=PEAK_LR,
        checkpoint=runs / "vae.pt",
        decay=0.995,
    )
    vae.load_state_dict(average.weights["vae"])
    return vae.eval().requires_grad_(False)
