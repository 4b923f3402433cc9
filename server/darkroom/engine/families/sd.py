"""Stable Diffusion 1.x and 2.x: one text encoder, 4-channel or 9-channel UNets."""

from typing import Any

from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)

from darkroom.requests import Task

PIPELINES: dict[Task, Any] = {
    Task.TXT2IMG: StableDiffusionPipeline,
    Task.IMG2IMG: StableDiffusionImg2ImgPipeline,
    Task.INPAINT: StableDiffusionInpaintPipeline,
}


def pipelines(loaded: Any, tasks: tuple[Task, ...]) -> dict[Task, Any]:
    """One pipeline a task around the parts of a loaded one."""
    parts = {name: loaded.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet")}
    return {
        task: PIPELINES[task](
            **parts,
            scheduler=loaded.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        for task in tasks
    }
