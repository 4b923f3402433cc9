"""Rows of small pictures with words below them."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from training.pictures import to_image

SIDE, GAP, LINE = 128, 6, 14  # pixels
PAPER, INK = (255, 255, 255), (30, 30, 34)
# Dark to light, and equally far apart to the eye: five colours of matplotlib's "viridis".
MAP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


def rows(lines: Sequence[Sequence[tuple[Image.Image, str]]]) -> Image.Image:
    """Rows of pictures, each with its words below; a word may have several lines."""
    font = ImageFont.load_default(11)
    below = [max(text.count("\n") + 1 for _, text in line) * LINE + GAP for line in lines]
    width = max(len(line) for line in lines) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, sum(below) + (SIDE + GAP) * len(lines)), PAPER)
    pen, top = ImageDraw.Draw(sheet), 0
    for line, height in zip(lines, below, strict=True):
        for column, (picture, text) in enumerate(line):
            left = column * (SIDE + GAP)
            sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top))
            pen.multiline_text((left, top + SIDE + 3), text, INK, font, spacing=2)
        top += SIDE + GAP + height
    return sheet


def picture(pixels: Tensor) -> Image.Image:
    """A picture of (3, H, W) in [-1, 1]."""
    return to_image(pixels.detach())


def numbers(values: Tensor, low: float, high: float) -> Image.Image:
    """Numbers of (H, W) as colours, dark for `low` and light for `high`."""
    share = ((values.detach() - low) / (high - low)).clamp(0, 1).numpy()
    stops = np.linspace(0, 1, len(MAP))
    colours = [np.interp(share, stops, channel) for channel in zip(*MAP, strict=True)]
    return Image.fromarray(np.stack(colours, -1).round().astype(np.uint8))


def lit(pixels: Tensor, values: Tensor) -> Image.Image:
    """A picture (3, H, W), dark where a map (h, w) is least, and as it is where it is most."""
    share = values.detach() - values.min()
    share = share / share.max().clamp(min=1e-9)
    large = torch.nn.functional.interpolate(
        share[None, None], pixels.shape[-2:], mode="bilinear", align_corners=False
    )[0]
    return picture((pixels.detach() + 1) * (0.12 + 0.88 * large) - 1)
