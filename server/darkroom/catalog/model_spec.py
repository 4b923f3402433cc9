"""Tasks, defaults and limits of a model, read from its configuration alone."""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from darkroom.catalog import pipelines
from darkroom.catalog.reading import UnusableError, read_json
from darkroom.catalog.schedulers import NATIVE
from darkroom.requests import MAX_CLIP_SKIP, MODEL_TASKS, Task
from darkroom.responses import ModelDefaults, ModelLimits

# Class in `model_index.json` → family. Our own sampling loop drives these.
FAMILIES: MappingProxyType[str, str] = MappingProxyType(
    {
        "StableDiffusionPipeline": "sd",
        "StableDiffusionImg2ImgPipeline": "sd",
        "StableDiffusionInpaintPipeline": "sd",
        "LatentConsistencyModelPipeline": "sd",
        "StableDiffusionXLPipeline": "sdxl",
        "StableDiffusionXLImg2ImgPipeline": "sdxl",
        "StableDiffusionXLInpaintPipeline": "sdxl",
    }
)
UNBATCHED = "whole"  # the family of all others: run by their pipeline from noise to picture

# Input channels of UNets: latents (4), and for inpainting mask and masked picture (5 more).
PLAIN, INPAINTING = 4, 9
OTHER_CHANNELS = {5: "depth", 7: "a picture to enlarge", 8: "a picture to edit"}


@dataclass(frozen=True)
class ModelSpec:
    """A model as its configuration describes it.

    Attributes:
        family: `sd`, `sdxl` or `whole`.
        pipeline: class in diffusers with all its parts.
        guided: whether the server applies classifier-free guidance itself.
    """

    family: str
    pipeline: str
    tasks: tuple[Task, ...]
    defaults: ModelDefaults
    limits: ModelLimits
    guided: bool


def examine(config: Path) -> ModelSpec:
    """Describe a folder in the diffusers format. Its weights are not read.

    Raises:
        UnusableError: models of this kind are not served, or the folder is not as diffusers
            writes it.
    """
    name = read_json(config / "model_index.json").get("_class_name")
    if not isinstance(name, str):
        raise UnusableError("its pipeline is code of its own, which is never run")
    try:
        if name in FAMILIES:
            return _stable_diffusion(config, FAMILIES[name])
        row = pipelines.find(name)
        if row is not None:
            return _whole(config, name, row)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, UnusableError):
            raise
        raise UnusableError(f"its configuration is not as diffusers writes it: {error!r}") from None
    raise UnusableError(f"{name} is not served: {pipelines.why_not(name)}")


def _stable_diffusion(config: Path, family: str) -> ModelSpec:
    unet = read_json(config / "unet" / "config.json")
    factor = _factor(config)
    encoders = [
        read_json(path) for path in sorted(config.glob("text_encoder*/config.json"))
    ]  # "text_encoder" before "text_encoder_2"
    if not encoders:
        raise UnusableError("it has no text encoder")
    tasks, pipeline = _tasks(config, family, int(unet.get("in_channels", PLAIN)))
    # diffusers takes SD's embeddings after the last layer and SDXL's after the last but one;
    # clip_skip counts from there and leaves at least one layer.
    read_before_end = 2 if family == "sdxl" else 1
    layers = min(int(encoder["num_hidden_layers"]) for encoder in encoders)
    return ModelSpec(
        family=family,
        pipeline=pipeline,
        tasks=tasks,
        defaults=_defaults(unet, _native(unet, factor), 5.0 if family == "sdxl" else 7.5),
        limits=_limits(_native(unet, factor), factor, max(0, layers - read_before_end)),
        guided=unet.get("time_cond_proj_dim") is None,
    )


def _tasks(config: Path, family: str, channels: int) -> tuple[tuple[Task, ...], str]:
    """Its tasks, and its class in diffusers."""
    prefix = "StableDiffusionXL" if family == "sdxl" else "StableDiffusion"
    if channels == INPAINTING:
        return (Task.INPAINT,), f"{prefix}InpaintPipeline"
    if channels != PLAIN:
        reads = OTHER_CHANNELS.get(channels, f"{channels} channels")
        raise UnusableError(f"its UNet reads {reads}, which no request carries")
    if family == "sdxl" and not (config / "text_encoder").is_dir():  # the refiner
        return (Task.IMG2IMG, Task.INPAINT), f"{prefix}Img2ImgPipeline"
    return MODEL_TASKS, f"{prefix}Pipeline"


def _defaults(unet: dict[str, Any], native: int, guidance: float) -> ModelDefaults:
    steps, scheduler = 25, "dpmpp_2m"
    if unet.get("time_cond_proj_dim") is not None:
        # A latent consistency model; the numbers of diffusers' pipeline for them.
        steps, guidance, scheduler = 4, 8.5, "lcm"
    return ModelDefaults(
        width=native,
        height=native,
        num_inference_steps=steps,
        guidance_scale=guidance,
        scheduler=scheduler,
    )


def _whole(config: Path, name: str, row: pipelines.UnbatchedPipeline) -> ModelSpec:
    core: dict[str, Any] = {}
    for part in ("transformer", "unet"):
        if (config / part / "config.json").is_file():
            core = read_json(config / part / "config.json")
    factor = _factor(config) if (config / "vae" / "config.json").is_file() else 8
    native = _native(core, factor) if isinstance(core.get("sample_size"), int) else 1024
    patch = core.get("patch_size", 2)
    return ModelSpec(
        family=UNBATCHED,
        pipeline=name,
        tasks=row.tasks,
        defaults=ModelDefaults(
            width=native,
            height=native,
            num_inference_steps=row.steps,
            guidance_scale=row.guidance,
            scheduler=NATIVE,
        ),
        limits=_limits(native, factor * (patch if isinstance(patch, int) else 2), 0),
        guided=False,
    )


def _factor(config: Path) -> int:
    """Pixels per latent pixel, along a side."""
    levels = read_json(config / "vae" / "config.json").get("block_out_channels")
    return 8 if levels is None else 2 ** (len(levels) - 1)


def _native(core: dict[str, Any], factor: int) -> int:
    """Side in pixels that the model was trained for."""
    latent = core.get("sample_size") or 64
    return int(latent[0] if isinstance(latent, list) else latent) * factor


def _limits(native: int, step: int, layers: int) -> ModelLimits:
    return ModelLimits(
        min_side=max(64, native // 4),
        max_side=native * 4,
        max_pixels=4 * native * native,
        multiple_of=max(step, 8),  # sizes in requests are multiples of 8
        max_clip_skip=min(layers, MAX_CLIP_SKIP),
    )
