"""The VAE: how few numbers a picture becomes, and what each of them is for."""

import math

import torch
from PIL import Image
from torch import Tensor

from inside import figures
from inside.model import BACKGROUND, SUBJECT, Model

PAIRS = (("fox", "blue"), ("penguin", "yellow"), ("pizza", "green"), ("rocket", "black"))


def kl(mean: float, deviation: float, of_mean: float = 0.0, of_deviation: float = 1.0) -> float:
    """Kullback–Leibler divergence of N(mean, deviation) from N(of_mean, of_deviation), in nats.

    The second number of each is the standard deviation, not the variance.
    """
    ratio = deviation / of_deviation
    apart = (mean - of_mean) / of_deviation
    return (ratio**2 + apart**2 - 1) / 2 - math.log(ratio)


def channels(model: Model) -> Image.Image:
    """The four channels of one picture's latents, and what each decodes to by itself."""
    latents = model.encode(model.scene(SUBJECT, BACKGROUND))
    bound = float(latents.abs().max())
    shown, decoded = [], []
    for number in range(latents.shape[1]):
        alone = torch.zeros_like(latents)
        alone[:, number] = latents[:, number]
        shown.append((figures.numbers(latents[0, number], -bound, bound), f"channel {number}"))
        decoded.append((figures.picture(model.decode(alone)), "decoded alone"))
    return figures.rows([shown, decoded])


def there_and_back(model: Model) -> Image.Image:
    """Pictures, what the VAE makes of them, and the difference."""
    given, made, missed = [], [], []
    for name, background in PAIRS:
        picture = model.scene(name, background)
        back = model.decode(model.encode(picture)).clamp(-1, 1)
        error = (back - picture).abs()
        given.append((figures.picture(picture), f"{name}: 49,152"))
        made.append((figures.picture(back), "made from 1,024"))
        missed.append((figures.picture(4 * error - 1), f"4x difference, {mean(error):.4f}"))
    return figures.rows([given, made, missed])


def mean(values: Tensor) -> float:
    """The mean of absolute numbers."""
    return float(values.abs().mean())


def posterior(model: Model) -> tuple[float, float, float]:
    """What the encoder says of one number of the latents, on average over `PAIRS`.

    Returns:
        Its standard deviation; the KL term, in nats; and the standard deviation of the means.
    """
    found = [model.vae.encode(model.scene(*pair)[None]).latent_dist for pair in PAIRS]
    deviations = torch.cat([one.std for one in found])
    means = torch.cat([one.mean for one in found])
    divergence = (deviations**2 + means**2 - 1) / 2 - deviations.log()
    return float(deviations.mean()), float(divergence.mean()), float(means.std())
