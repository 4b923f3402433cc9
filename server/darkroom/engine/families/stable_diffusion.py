"""Stable Diffusion 1.x and 2.x, with one text encoder, and SDXL with two or the second alone."""

from typing import Any

import diffusers
import torch

from darkroom.engine.families.unet import UNetFamily
from darkroom.requests import Task, Txt2Img

# What the SDXL refiner is told a good and a bad picture score, diffusers' defaults.
AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE = 6.0, 2.5


class StableDiffusionXL(UNetFamily):
    """SDXL, its refiner, and its distilled and inpainting variants."""

    def _time_ids(self, request: Txt2Img, negative: bool) -> torch.Tensor | None:
        """(1, 6): original size, crop, target size; the refiner's (1, 5) end in a score instead."""
        size = [request.height, request.width]
        last: list[float] = [*size]
        if self._pipeline(request).config.get("requires_aesthetics_score", False):
            last = [NEGATIVE_AESTHETIC_SCORE if negative else AESTHETIC_SCORE]
        return torch.tensor([[*size, 0, 0, *last]], dtype=self.dtype, device=self.device)


FAMILIES: dict[str, type[UNetFamily]] = {"sd": UNetFamily, "sdxl": StableDiffusionXL}
PIPELINES: dict[str, dict[Task, Any]] = {
    "sd": {
        Task.TXT2IMG: diffusers.StableDiffusionPipeline,
        Task.IMG2IMG: diffusers.StableDiffusionImg2ImgPipeline,
        Task.INPAINT: diffusers.StableDiffusionInpaintPipeline,
    },
    "sdxl": {
        Task.TXT2IMG: diffusers.StableDiffusionXLPipeline,
        Task.IMG2IMG: diffusers.StableDiffusionXLImg2ImgPipeline,
        Task.INPAINT: diffusers.StableDiffusionXLInpaintPipeline,
    },
}


def pipelines(loaded: Any, family: str, tasks: tuple[Task, ...]) -> dict[Task, Any]:
    """One pipeline a task around the parts of a loaded one, without watermark."""
    given = {**loaded.config, **loaded.components}
    given |= {"requires_safety_checker": False, "add_watermarker": False}
    made = {}
    for task in tasks:
        cls = PIPELINES[family][task]
        parts, options = cls._get_signature_keys(cls)
        made[task] = cls(**{name: given[name] for name in (*parts, *options) if name in given})
    return made
