"""Stock diffusers, called as its documentation says: what our pictures are held against."""

import inspect
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    DiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image

from darkroom.engine.base import EngineJob
from darkroom.engine.sample import build_scheduler
from darkroom.requests import Task, Txt2Img

SD: dict[Task, Any] = {
    Task.TXT2IMG: StableDiffusionPipeline,
    Task.IMG2IMG: StableDiffusionImg2ImgPipeline,
    Task.INPAINT: StableDiffusionInpaintPipeline,
}
SDXL: dict[Task, Any] = {
    Task.TXT2IMG: StableDiffusionXLPipeline,
    Task.IMG2IMG: StableDiffusionXLImg2ImgPipeline,
    Task.INPAINT: StableDiffusionXLInpaintPipeline,
}


class Stock:
    """The stock pipelines of one model folder, fp32 on the CPU."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pictures: dict[str, Image.Image] = {}

    @cached_property
    def _loaded(self) -> Any:
        pipeline = DiffusionPipeline.from_pretrained(self._folder, dtype=torch.float32)
        for name in ("text_encoder", "text_encoder_2"):
            encoder = pipeline.components.get(name)
            if encoder is not None and not hasattr(encoder, "text_model"):
                # transformers 5 took this wrapper out; diffusers 0.42 reaches through it.
                object.__setattr__(encoder, "text_model", encoder)
        return pipeline

    def pipeline(self, task: Task, scheduler: str) -> Any:
        """A fresh pipeline around the loaded parts."""
        loaded = self._loaded
        parts = loaded.components
        if "text_encoder_2" not in parts:
            made = SD[task](**parts, requires_safety_checker=False)
        else:
            scored = loaded.config.get("requires_aesthetics_score", False)
            options = {} if task is Task.TXT2IMG else {"requires_aesthetics_score": scored}
            zeros = loaded.config["force_zeros_for_empty_prompt"]
            made = SDXL[task](**parts, force_zeros_for_empty_prompt=zeros, **options)
        made.scheduler = build_scheduler(scheduler, loaded.scheduler.config)
        made.set_progress_bar_config(disable=True)
        return made

    def picture(self, job: EngineJob, index: int = 0) -> Image.Image:
        """Image `index` of the job; the same question is answered from memory."""
        question = f"{index} {job.request.model_dump_json()}"
        if question not in self._pictures:
            self._pictures[question] = self._develop(job.request, index, job.image, job.mask)
        return self._pictures[question]

    def _develop(
        self,
        asked: Txt2Img,
        index: int,
        image: Image.Image | None,
        mask: Image.Image | None,
    ) -> Image.Image:
        pipeline = self.pipeline(asked.task, asked.scheduler)
        size = {"width": asked.width, "height": asked.height}
        options: dict[str, Any] = {}
        match asked.task:
            case Task.TXT2IMG:
                options = size
            case Task.IMG2IMG:
                options = {"image": image, "strength": asked.strength}
            case Task.INPAINT:
                options = {"image": image, "mask_image": mask, "strength": asked.strength, **size}
                options["padding_mask_crop"] = asked.padding_mask_crop
        if "guidance_rescale" in inspect.signature(pipeline.__call__).parameters:
            options["guidance_rescale"] = asked.guidance_rescale
        picture: Image.Image = pipeline(
            asked.prompt,
            negative_prompt=asked.negative_prompt or None,
            num_inference_steps=asked.num_inference_steps,
            guidance_scale=asked.guidance_scale,
            clip_skip=asked.clip_skip or None,
            generator=torch.Generator("cpu").manual_seed(asked.seed_of(index)),
            **options,
        ).images[0]
        return picture


def assert_equal(ours: Image.Image, theirs: Image.Image) -> None:
    """No pixel differs by more than 1/255."""
    difference = np.asarray(ours, dtype=np.int16) - np.asarray(theirs, dtype=np.int16)
    assert np.abs(difference).max() <= 1
