"""Previews cheap enough to be always on: a linear map from latents to colours, no VAE."""

import io
import json
from pathlib import Path

import torch
from PIL import Image

from darkroom.catalog.notes import NOTES

SCALE = 4  # preview pixels a latent pixel
QUALITY = 70

# Red, green and blue of each latent channel of the SD 1.x VAE, fitted by the community
# (https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204).
SD_FACTORS = (
    (0.298, 0.207, 0.208),
    (0.187, 0.286, 0.173),
    (-0.158, 0.189, 0.264),
    (-0.184, -0.271, -0.473),
)


class Preview:
    """The map of one model.

    Args:
        folder: of the model; its notes may hold `latent_rgb`, a row a latent channel and one more
            row of offsets, fitted to scaled latents and colours in [-1, 1].
    """

    def __init__(self, folder: Path) -> None:
        notes = folder / NOTES
        fitted = json.loads(notes.read_text()).get("latent_rgb") if notes.is_file() else None
        rows = fitted or [*SD_FACTORS, (0.0, 0.0, 0.0)]
        self._matrix = torch.tensor(rows, dtype=torch.float32)  # (C + 1, 3)

    def render(self, latents: torch.Tensor) -> bytes:
        """A small WebP.

        Args:
            latents: (1, C, h, w), scaled as the UNet sees them.
        """
        columns = latents[0].float().cpu().permute(1, 2, 0)  # (h, w, C)
        colours = columns @ self._matrix[:-1] + self._matrix[-1]  # (h, w, 3)
        pixels = ((colours.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
        picture = Image.fromarray(pixels, "RGB")
        larger = (picture.width * SCALE, picture.height * SCALE)
        buffer = io.BytesIO()
        picture.resize(larger, Image.Resampling.BICUBIC).save(buffer, "WEBP", quality=QUALITY)
        return buffer.getvalue()
