"""Readies a loaded model for this machine: runs its networks once, and measures its calls."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from darkroom.engine import costs
from darkroom.engine.base import EngineJob
from darkroom.engine.costs import Costs
from darkroom.engine.families.base import Family
from darkroom.requests import RESOLVED, Task
from darkroom.responses import ModelInfo

CPU_SIDE = 256  # a call at 1024² takes a CPU up to a minute


def warm_up(
    family: Family, info: ModelInfo, device: torch.device, clock: Callable[[], float]
) -> Costs | None:
    """The seconds of calls of the denoiser; None for a family that shares none.

    They are of the model's default size on an accelerator. On a CPU they are few and of a small
    size, because somebody may wait for a picture. On an accelerator a first call says little.

    Raises:
        torch.OutOfMemoryError: not even one row fits.
        Exception: the model's parts do not work together.
    """
    native = (info.defaults.width, info.defaults.height)
    most = max(CPU_SIDE, info.limits.min_side) if device.type == "cpu" else max(native)
    size = (min(native[0], most), min(native[1], most))
    warm = family.warm_up(_job(info, size))
    if warm is None:
        return None

    def denoise(rows: int) -> None:
        warm.call(rows)
        if device.type != "cpu":
            torch.accelerator.synchronize()

    brief = device.type == "cpu"
    return costs.measure(denoise, clock, warm.area, native=size == native, brief=brief)


def _job(info: ModelInfo, size: tuple[int, int]) -> EngineJob:
    """One image of a size, guided, of the first task that the model can do."""
    task = info.tasks[0]
    fields: dict[str, Any] = {
        "model": info.name,
        "prompt": "",
        "width": size[0],
        "height": size[1],
        "num_inference_steps": 1,
        "guidance_scale": max(2.0, info.defaults.guidance_scale),
        "seed": 0,
        "scheduler": info.defaults.scheduler,
    }
    if task in (Task.IMG2IMG, Task.INPAINT):
        fields |= {"image": "image:none", "strength": 1.0}
    if task is Task.INPAINT:
        fields |= {"mask_image": "image:none", "keep_unmasked": False}
    references: tuple[Image.Image, ...] = ()
    picture = Image.new("RGB", size)
    if task is Task.EDIT:
        fields |= {"references": ("image:none",)}
        references = (picture,)
    mask = Image.new("L", size, 255)
    return EngineJob("warmup", RESOLVED[task](**fields), picture, mask, references=references)
