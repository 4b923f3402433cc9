"""The stock diffusers pipeline, called in a loop: the first thing to be held against."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers.utils import logging as transformers_logging

SEED = 7
PROMPT = "a red fox"


def pick_device() -> str:
    """What our server takes by itself: the GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def hush() -> None:
    """Keep progress bars out of the report."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def load(folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """The pipeline that the folder's `model_index.json` names, as diffusers' pages load it.

    Args:
        folder: in the diffusers format.
        dtype: of weights and activations.
        device: where it lives.
    """
    hush()
    pipeline = DiffusionPipeline.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def develop(
    pipeline: Any, images: int, *, steps: int, guidance_scale: float, side: int | None = None
) -> list[Image.Image]:
    """Make pictures one after the other.

    Args:
        pipeline: from `load`.
        images: how many, each from its own seed.
        steps: denoising steps.
        guidance_scale: at 1 or less there is no guidance.
        side: width and height in pixels; None is the model's own.
    """
    return [
        pipeline(
            PROMPT,
            width=side,
            height=side,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=torch.Generator("cpu").manual_seed(SEED + image),
        ).images[0]
        for image in range(images)
    ]
