"""Tasks, defaults and limits of a model, read from its configuration, and its owner's notes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from darkroom.catalog import pipelines, schedulers
from darkroom.catalog.pipelines import UnbatchedPipeline
from darkroom.catalog.schedulers import NATIVE
from darkroom.catalog.weight_files import UnusableError, read_json
from darkroom.requests import MAX_CLIP_SKIP, MODEL_TASKS, PositiveSize, Schema, Task
from darkroom.responses import ModelDefaults, ModelLimits

# Class in `model_index.json` → family. Our own sampling loop drives these.
FAMILIES: Mapping[str, str] = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionImg2ImgPipeline": "sd",
    "StableDiffusionInpaintPipeline": "sd",
    "LatentConsistencyModelPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLImg2ImgPipeline": "sdxl",
    "StableDiffusionXLInpaintPipeline": "sdxl",
}
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
            return _unbatched(config, name, row)
    except UnusableError:
        raise
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UnusableError(f"its configuration is not as diffusers writes it: {error!r}") from None
    raise UnusableError(f"{name} is not served: {pipelines.why_not(name)}")


def check_channels(channels: int) -> None:
    """Raise `UnusableError` for a UNet that reads more than latents, mask and masked picture."""
    if channels not in (PLAIN, INPAINTING):
        reads = OTHER_CHANNELS.get(channels, f"{channels} channels")
        raise UnusableError(f"its UNet reads {reads}, which no request carries")


def _stable_diffusion(config: Path, family: str) -> ModelSpec:
    unet = read_json(config / "unet" / "config.json")
    factor = _factor(config)
    native = _native(unet, factor)
    encoders = [read_json(path) for path in sorted(config.glob("text_encoder*/config.json"))]
    if not encoders:
        raise UnusableError("it has no text encoder")
    tasks, pipeline = _tasks(config, family, int(unet.get("in_channels", PLAIN)))
    # diffusers takes SD's embeddings after the last layer and SDXL's after the last but one;
    # clip_skip counts from there and leaves at least one layer.
    read_before_end = 2 if family == "sdxl" else 1
    layers = min(int(encoder["num_hidden_layers"]) for encoder in encoders)
    steps, guidance, scheduler = 25, 5.0 if family == "sdxl" else 7.5, "dpmpp_2m"
    guided = unet.get("time_cond_proj_dim") is None
    if not guided:  # a latent consistency model; the numbers of diffusers' pipeline for them
        steps, guidance, scheduler = 4, 8.5, "lcm"
    return ModelSpec(
        family=family,
        pipeline=pipeline,
        tasks=tasks,
        defaults=_defaults(native, steps, guidance, scheduler),
        limits=_limits(native, factor, max(0, layers - read_before_end)),
        guided=guided,
    )


def _tasks(config: Path, family: str, channels: int) -> tuple[tuple[Task, ...], str]:
    """Its tasks, and its class in diffusers."""
    prefix = "StableDiffusionXL" if family == "sdxl" else "StableDiffusion"
    check_channels(channels)
    if channels == INPAINTING:
        return (Task.INPAINT,), f"{prefix}InpaintPipeline"
    if family == "sdxl" and not (config / "text_encoder").is_dir():  # the refiner
        return (Task.IMG2IMG, Task.INPAINT), f"{prefix}Img2ImgPipeline"
    return MODEL_TASKS, f"{prefix}Pipeline"


def _unbatched(config: Path, name: str, row: UnbatchedPipeline) -> ModelSpec:
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
        defaults=_defaults(native, row.steps, row.guidance, NATIVE),
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


def _defaults(native: int, steps: int, guidance: float, scheduler: str) -> ModelDefaults:
    return ModelDefaults(
        width=native,
        height=native,
        num_inference_steps=steps,
        guidance_scale=guidance,
        scheduler=scheduler,
    )


def _limits(native: int, multiple: int, layers: int) -> ModelLimits:
    return ModelLimits(
        min_side=max(64, native // 4),
        max_side=native * 4,
        max_pixels=4 * native * native,
        multiple_of=max(multiple, 8),  # sizes in requests are multiples of 8
        max_clip_skip=min(layers, MAX_CLIP_SKIP),
    )


class NotedDefaults(Schema):
    """Defaults of requests; see `ModelDefaults`."""

    width: PositiveSize | None = None
    height: PositiveSize | None = None
    num_inference_steps: int | None = Field(None, ge=1, le=150)
    guidance_scale: float | None = Field(None, ge=0, le=30)
    scheduler: str | None = None


class NotedLimits(Schema):
    """Limits of requests; see `ModelLimits`."""

    min_side: int | None = Field(None, ge=8, le=8192)
    max_side: int | None = Field(None, ge=8, le=8192)
    max_pixels: int | None = Field(None, ge=64)
    multiple_of: int | None = Field(None, ge=1, le=1024)
    max_clip_skip: int | None = Field(None, ge=0, le=MAX_CLIP_SKIP)


class Notes(Schema):
    """The owner's notes on a model. docs/models.md explains each key.

    Attributes:
        config: of a single file: an embedded one, or a folder in `configs/`.
        vae: file or folder in `vae/` that replaces the model's own.
        tiny_vae: file or folder in `vae/` of a small VAE, used if the settings say so.
        latent_rgb: for previews, a row of red, green and blue for each latent channel, and one of
            offsets.
    """

    description: str = Field("", max_length=1000)
    defaults: NotedDefaults = NotedDefaults()
    limits: NotedLimits = NotedLimits()
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = None
    rescale_betas_zero_snr: bool | None = None
    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None
    config: str | None = None
    vae: str | None = None
    tiny_vae: str | None = None
    latent_rgb: tuple[tuple[float, float, float], ...] | None = None


def read_notes(path: Path) -> Notes:
    """Read the owner's notes; empty ones if there is no file.

    Raises:
        UnusableError: a key is wrong; names it.
    """
    if not path.is_file():
        return Notes()
    try:
        notes = Notes.model_validate(read_json(path))
        if notes.defaults.scheduler is not None:
            schedulers.find(notes.defaults.scheduler)
    except ValidationError as error:
        wrong = "; ".join(
            ".".join(map(str, item["loc"]))
            + (" is no key of ours" if item["type"] == "extra_forbidden" else f": {item['msg']}")
            for item in error.errors(include_url=False, include_input=False)
        )
        raise UnusableError(f"its notes {path.name} are not valid: {wrong}") from None
    except schedulers.UnknownSchedulerError as error:
        raise UnusableError(f"its notes {path.name}: {error}") from None
    return notes
