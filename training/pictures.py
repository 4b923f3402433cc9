"""Scenes and photographs as tensors: what the networks are shown."""

from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from training import colours
from training.captions import FULL, Scene, Thing
from training.colours import BACKGROUNDS
from training.data import SIDE, SIZE, DataSet

PHOTOGRAPH_SHARE = 0.2  # of the autoencoder's pictures: img2img and inpaint encode photographs
NAMED_SHARE = 0.7  # of the colours behind its things are those that captions name


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """Returns (C, H, W) in [-1, 1]."""
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32))  # (H, W, C)
    return pixels.permute(2, 0, 1) / 127.5 - 1


def to_image(picture: torch.Tensor) -> Image.Image:
    """A picture of (3, H, W) in [-1, 1]."""
    pixels = ((picture.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.cpu().numpy())


def rgb(colour: str) -> torch.Tensor:
    """A background's colour, (3, 1, 1) in [-1, 1]."""
    return torch.tensor(BACKGROUNDS[colour]).view(3, 1, 1) / 127.5 - 1


class Pictures:
    """Draws scenes of a data set, and random pictures for the autoencoder."""

    def __init__(self, data: DataSet) -> None:
        self._data = data
        self._cut_out = lru_cache(4096)(self._cut_out_uncached)

    def scene(self, scene: Scene) -> torch.Tensor:
        """Returns (3, 128, 128) in [-1, 1]."""
        canvas = backdrop(scene.background)
        for thing in scene.things:
            self._paste(canvas, thing)
        return canvas

    def random(self, rng: np.random.Generator, size: int) -> torch.Tensor:
        """A piece of a photograph, or of a subject on any colour: (3, size, size) in [-1, 1]."""
        if rng.random() < PHOTOGRAPH_SHARE:
            whole = self._data.photographs[rng.integers(len(self._data.photographs))]
            side = int(rng.integers(size, min(*whole.size, 4 * size) + 1))
            left = int(rng.integers(whole.width - side + 1))
            top = int(rng.integers(whole.height - side + 1))
            box = (left, top, left + side, top + side)
            picture = to_tensor(whole.resize((size, size), Image.Resampling.BOX, box))
        else:
            names = list(BACKGROUNDS)
            if rng.random() < NAMED_SHARE:
                canvas = backdrop((names[rng.integers(len(names))],))
            else:
                flat = torch.from_numpy(rng.uniform(-1, 1, 3).astype(np.float32))
                canvas = flat.view(3, 1, 1).repeat(1, SIZE, SIZE)
            self._paste(canvas, Thing(int(rng.integers(len(self._data.subjects)))))
            left, top = (int(v) for v in rng.integers(SIZE - size + 1, size=2))
            picture = canvas[:, top : top + size, left : left + size]
        return picture.flip(-1) if rng.random() < 0.5 else picture

    def alpha(self, thing: Thing) -> torch.Tensor:
        """Where a thing covers what is behind it: (1, 128, 128) in [0, 1]."""
        covered = torch.zeros(1, SIZE, SIZE)
        alpha = self._cut_out(thing.subject, thing.side, thing.colour)[1]
        _place(covered, thing).copy_(alpha)
        return covered

    def _paste(self, canvas: torch.Tensor, thing: Thing) -> None:
        """Draw a thing onto (3, 128, 128)."""
        shape, alpha = self._cut_out(thing.subject, thing.side, thing.colour)
        place = _place(canvas, thing)
        place.copy_(shape * alpha + place * (1 - alpha))

    def _cut_out_uncached(
        self, subject: int, side: float, colour: str | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A subject's colours (3, n, n) in [-1, 1], and its alpha (1, n, n)."""
        picture = self._data.pictures[subject]
        if colour is not None:
            picture = colours.recoloured(picture, colour)
        if side != FULL:
            pixels = round(SIZE * side)
            picture = picture.resize((pixels, pixels), Image.Resampling.LANCZOS)
        pixels_tensor = to_tensor(picture)
        return pixels_tensor[:3], (pixels_tensor[3:] + 1) / 2


def _place(canvas: torch.Tensor, thing: Thing) -> torch.Tensor:
    """The part of (C, 128, 128) that a thing is drawn on, a view."""
    side = SIDE if thing.side == FULL else round(SIZE * thing.side)
    left, top = (round(SIZE * at - side / 2) for at in thing.centre)
    return canvas[:, top : top + side, left : left + side]


def backdrop(background: tuple[str, ...]) -> torch.Tensor:
    """A flat colour, or a gradient from the first at the top to the second: (3, 128, 128)."""
    if len(background) == 1:
        return rgb(background[0]).repeat(1, SIZE, SIZE)
    down = torch.linspace(0, 1, SIZE).view(1, SIZE, 1)
    first, second = (rgb(colour) for colour in background)
    return (first * (1 - down) + second * down).repeat(1, 1, SIZE)


def thumbnail(picture: torch.Tensor) -> torch.Tensor:
    """The mean of 4×4 pixels: (..., 3, H, W) to (..., 3, H/4, W/4)."""
    return F.avg_pool2d(picture, 4)
