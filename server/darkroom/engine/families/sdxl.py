"""Stable Diffusion XL, base and refiner: two text encoders, or the second alone."""

from typing import Any

import torch
from diffusers import (
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)

from darkroom.engine.families.unet import UNetFamily
from darkroom.requests import Task, Txt2Img

PIPELINES: dict[Task, Any] = {
    Task.TXT2IMG: StableDiffusionXLPipeline,
    Task.IMG2IMG: StableDiffusionXLImg2ImgPipeline,
    Task.INPAINT: StableDiffusionXLInpaintPipeline,
}
# What the refiner is told a good and a bad picture score, diffusers' defaults.
AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE = 6.0, 2.5


def pipelines(loaded: Any, tasks: tuple[Task, ...]) -> dict[Task, Any]:
    """One pipeline a task around the parts of a loaded one."""
    names = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet")
    parts = {name: loaded.components.get(name) for name in names}
    zeros = loaded.config.get("force_zeros_for_empty_prompt", True)
    scored = loaded.config.get("requires_aesthetics_score", False)
    made = {}
    for task in tasks:
        options = {} if task is Task.TXT2IMG else {"requires_aesthetics_score": scored}
        made[task] = PIPELINES[task](
            **parts,
            scheduler=loaded.scheduler,
            force_zeros_for_empty_prompt=zeros,
            add_watermarker=False,
            **options,
        )
    return made


class StableDiffusionXL(UNetFamily):
    """SDXL and its distilled and inpainting variants."""

    def _time_ids(self, request: Txt2Img, negative: bool) -> torch.Tensor | None:
        """(1, 6): original size, crop, target size; the refiner's (1, 5) end in a score instead."""
        pipeline = self._pipeline(request)
        size = [request.height, request.width]
        last: list[float] = [*size]
        if pipeline.config.get("requires_aesthetics_score", False):
            last = [NEGATIVE_AESTHETIC_SCORE if negative else AESTHETIC_SCORE]
        return torch.tensor([[*size, 0, 0, *last]], dtype=self.dtype, device=self.device)
