"""Previews by a linear map from latents to colours, without the VAE."""

import io
from collections.abc import Sequence
from types import MappingProxyType

import torch
from PIL import Image

SCALE = 4  # preview pixels a latent pixel, at most
LONGEST_SIDE = 256  # preview pixels: larger ones cost more than they show
QUALITY = 70
FASTEST = 0  # of WebP's methods: half the time of the usual one for a tenth more bytes

Rows = Sequence[tuple[float, float, float]]

# Red, green and blue of each latent channel, then what is added: fitted by the community to the
# VAEs of SD 1.x and 2.x, and of SDXL (ComfyUI, comfy/latent_formats.py).
FACTORS: MappingProxyType[str, Rows] = MappingProxyType(
    {
        "sd": (
            (0.3512, 0.2297, 0.3227),
            (0.3250, 0.4974, 0.2350),
            (-0.2829, 0.1762, 0.2721),
            (-0.2120, -0.2616, -0.7177),
            (0.0, 0.0, 0.0),
        ),
        "sdxl": (
            (0.3651, 0.4232, 0.4341),
            (-0.2533, -0.0042, 0.1068),
            (0.1076, 0.1111, -0.0362),
            (-0.3165, -0.2492, -0.2188),
            (0.1084, -0.0175, -0.0011),
        ),
    }
)


class Preview:
    """The map of one model: the one fitted to it, from its notes, else its family's.

    It has a row for each latent channel and one of offsets, from scaled latents to [-1, 1].
    """

    def __init__(self, family: str, fitted: Rows | None = None) -> None:
        self._matrix = torch.tensor(fitted or FACTORS[family], dtype=torch.float32)  # (C + 1, 3)

    def render(self, latents: torch.Tensor) -> bytes:
        """A small WebP of latents (1, C, h, w), scaled as for the UNet.

        Raises:
            RuntimeError: the latents have another number of channels than the map.
        """
        columns = latents[0].float().cpu().permute(1, 2, 0)  # (h, w, C)
        colours = columns @ self._matrix[:-1] + self._matrix[-1]  # (h, w, 3)
        pixels = ((colours.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
        picture = Image.fromarray(pixels, "RGB")
        scale = min(SCALE, LONGEST_SIDE / max(picture.size))
        size = (round(picture.width * scale), round(picture.height * scale))
        buffer = io.BytesIO()
        picture = picture.resize(size, Image.Resampling.BICUBIC)
        picture.save(buffer, "WEBP", quality=QUALITY, method=FASTEST)
        return buffer.getvalue()
