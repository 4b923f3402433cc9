"""Tasks, defaults and limits of a model, read from its configuration, and its owner's notes."""

import errno
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat, ValidationError

from darkroom.catalog import families, few_steps, schedulers, widths
from darkroom.catalog.families import SDXL, UNETS, VARYING, Family, Guidance
from darkroom.catalog.listing import Listed
from darkroom.catalog.schedulers import NATIVE
from darkroom.catalog.sidecars import MAX_BYTES, OURS, SHARED
from darkroom.catalog.weight_files import UnusableError, read_bytes, read_json
from darkroom.errors import did_you_mean
from darkroom.requests import (
    MAX_CLIP_SKIP,
    MAX_REFERENCES,
    REQUESTS,
    PositiveSize,
    Schema,
    Task,
    Txt2Img,
)
from darkroom.responses import ModelDefaults, ModelLimits, PictureSize

# Input channels of UNets: latents (4), and for inpainting mask and masked picture (5 more).
PLAIN, INPAINTING = 4, 9
OTHER_CHANNELS = {5: "depth", 7: "a picture to enlarge", 8: "a picture to edit"}

MAX_SIDE = 8192  # of requests
TURBO_SHIFT = 3.0  # of Z-Image-Turbo's scheduler; Z-Image's own is 6


@dataclass(frozen=True)
class ModelSpec:
    """A model as its configuration describes it.

    Attributes:
        pipelines: class in diffusers for each of its tasks.
        pipeline: the one of them by which it is loaded.
        guidance: the family's, unless its files say otherwise.
        rescales: whether classifier-free guidance is ours, so that it can be rescaled.
        latent_channels: of its latents; None if its configuration does not tell.
        schedulers: names of those that it takes; all if empty.
    """

    family: Family
    pipelines: Mapping[Task, str]
    pipeline: str
    defaults: ModelDefaults
    limits: ModelLimits
    guidance: Guidance
    rescales: bool
    latent_channels: int | None
    schedulers: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(self.pipelines)

    def takes(self, field: str) -> bool:
        """Whether it honours a field of its tasks' requests."""
        if field == "guidance_rescale":
            return self.rescales
        if field == "loras":
            return self.family.loras is not None
        if field in families.GUIDED and self.guidance is Guidance.NONE:
            return False
        return field not in VARYING or field in self.family.takes

    @property
    def fields(self) -> tuple[str, ...]:
        """The optional fields that it takes, of the requests of all its tasks."""
        kinds = [REQUESTS[task].model_fields for task in self.tasks]
        found = {
            name: None
            for fields in kinds
            for name, field in fields.items()
            if not field.is_required() and self.takes(name)
        }
        return tuple(found)

    def call_arguments(self, request: Txt2Img) -> dict[str, Any]:
        """What its pipeline's call is given of a request, but pictures and random numbers."""
        negative_prompt = request.negative_prompt if self.takes("negative_prompt") else ""
        arguments = {
            "prompt": request.prompt,
            "num_inference_steps": request.num_inference_steps,
            **self.guidance.arguments(request.guidance_scale, negative_prompt),
            **self.family.arguments,
        }
        if request.task not in self.family.sizeless:
            arguments |= {"width": request.width, "height": request.height}
        for name in ("strength", "padding_mask_crop"):
            if hasattr(request, name) and self.takes(name):
                arguments[name] = getattr(request, name)
        if self.family.area_argument is not None:
            arguments[self.family.area_argument] = request.width * request.height
        return arguments


def examine(config: Path, name: str = "") -> ModelSpec:
    """Describe a folder in the diffusers format. Its weights are not read.

    Args:
        config: the folder.
        name: of the model, which may say that it was distilled.

    Raises:
        UnusableError: models of this kind are not served, or the folder is not as diffusers
            writes it.
    """
    index = read_json(config / "model_index.json")
    class_name = index.get("_class_name")
    if not isinstance(class_name, str):
        raise UnusableError("its pipeline is code of its own, which is never run")
    family = families.find(class_name)
    if family is None:
        raise UnusableError(f"{class_name} is not served: {families.why_not(class_name)}")
    if family.lacks is not None:
        raise UnusableError(family.lacks)
    try:
        widths.check(config, family)
        if family in UNETS:
            return _stable_diffusion(config, family, name)
        return _by_its_pipeline(config, index, family, name)
    except UnusableError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UnusableError(f"its configuration is not as diffusers writes it: {error!r}") from None


def check_channels(channels: int) -> None:
    """Raise `UnusableError` for a UNet that reads more than latents, mask and masked picture."""
    if channels not in (PLAIN, INPAINTING):
        reads = OTHER_CHANNELS.get(channels, f"{channels} channels")
        raise UnusableError(f"its UNet reads {reads}, which no request carries")


def _stable_diffusion(config: Path, family: Family, name: str) -> ModelSpec:
    unet = read_json(config / "unet" / "config.json")
    factor = _factor(config)
    encoders = [read_json(path) for path in sorted(config.glob("text_encoder*/config.json"))]
    if not encoders:
        raise UnusableError("it has no text encoder")
    tasks, task = _tasks(config, family, int(unet.get("in_channels", PLAIN)))
    # diffusers takes SD's embeddings after the last layer and SDXL's after the last but one;
    # clip_skip counts from there and leaves at least one layer.
    read_before_end = 2 if family is SDXL else 1
    layers = min(int(encoder["num_hidden_layers"]) for encoder in encoders)
    steps, guidance, scheduler = family.steps, family.guidance_scale, "dpmpp_2m"
    guided = unet.get("time_cond_proj_dim") is None
    if not guided:  # a latent consistency model; the numbers of diffusers' pipeline for them
        steps, guidance, scheduler = 4, 8.5, "lcm"
    elif (said := few_steps.scheduler_of(name)) or _is_turbo(config):
        steps, guidance = few_steps.steps(name) or family.few_steps, 0.0
        scheduler = said or few_steps.EULER
    return ModelSpec(
        family=family,
        pipelines={task: _class(family, task) for task in tasks},
        pipeline=_class(family, task),
        defaults=_defaults(_native(unet, factor), steps, guidance, scheduler),
        limits=_limits(_native(unet, factor), factor, max(0, layers - read_before_end)),
        guidance=family.guidance if guided else Guidance.EMBEDDED,
        rescales=guided,
        latent_channels=int(unet.get("out_channels", PLAIN)),
    )


def _tasks(config: Path, family: Family, channels: int) -> tuple[tuple[Task, ...], Task]:
    """The tasks of a UNet, and the one whose class has all its parts."""
    check_channels(channels)
    if channels == INPAINTING:
        return (Task.INPAINT,), Task.INPAINT
    if family is SDXL and not (config / "text_encoder").is_dir():  # the refiner
        return (Task.IMG2IMG, Task.INPAINT), Task.IMG2IMG
    return family.tasks, Task.TXT2IMG


def _class(family: Family, task: Task) -> str:
    name = family.pipeline(task)
    assert name is not None
    return name


def _is_turbo(config: Path) -> bool:
    """Whether a UNet was distilled as SD and SDXL Turbo, by the scheduler that it comes with.

    Others are trained to start from less than full noise, with `leading` spacing, or to predict
    velocity.
    """
    try:
        scheduler = read_json(config / "scheduler" / "scheduler_config.json")
    except UnusableError:
        return False
    return (
        str(scheduler.get("_class_name")).startswith("Euler")
        and scheduler.get("timestep_spacing") == "trailing"
        and scheduler.get("prediction_type", "epsilon") == "epsilon"
        and not scheduler.get("rescale_betas_zero_snr")
    )


def _by_its_pipeline(
    config: Path, index: Mapping[str, Any], family: Family, name: str
) -> ModelSpec:
    """A model that its own pipeline draws."""
    core: dict[str, Any] = {}
    for part in ("transformer", "unet"):
        if (config / part / "config.json").is_file():
            core = read_json(config / part / "config.json")
    factor = _factor(config) if (config / "vae" / "config.json").is_file() else 8
    token = factor * int(core.get("patch_size", 2) if family.packing is None else family.packing)
    largest = _largest(core, family, token)
    sized = isinstance(core.get("sample_size"), int) and not family.positions_in_all
    native = min(_native(core, factor) if sized else family.side, largest)
    steps, scale, guidance = family.steps, family.guidance_scale, family.guidance
    if guidance is Guidance.EMBEDDED and core.get("guidance_embeds") is False:
        guidance = Guidance.TRUE_CFG if "negative_prompt" in family.takes else Guidance.NONE
    distilled = index.get("is_distilled") is True
    if distilled and guidance is Guidance.CFG:
        guidance = Guidance.NONE
    unguided = family.guidance is Guidance.EMBEDDED and guidance is not Guidance.EMBEDDED
    shifted = family.guidance is Guidance.CFG_ADDED and _shift(config) == TURBO_SHIFT
    if distilled or unguided or shifted or few_steps.scheduler_of(name):
        steps = few_steps.steps(name) or family.few_steps
        scale = scale if guidance is Guidance.EMBEDDED else 0.0
    pipelines = {task: _class(family, task) for task in family.tasks}
    return ModelSpec(
        family=family,
        pipelines=pipelines,
        pipeline=next(iter(pipelines.values())),
        defaults=_defaults(native, steps, scale, NATIVE),
        limits=_limits(native, token, 0, family.max_references, largest),
        guidance=guidance,
        rescales=False,
        schedulers=_schedulers(config, family),
        latent_channels=_latent_channels(config),
    )


def _schedulers(config: Path, family: Family) -> tuple[str, ...]:
    """Its own, and others where a family that was tested with them learns a flow."""
    path = config / "scheduler" / "scheduler_config.json"
    own = read_json(path).get("_class_name") if path.is_file() else None
    flows = own == "FlowMatchEulerDiscreteScheduler" and family.name != families.WHOLE
    return schedulers.FLOW if flows else (NATIVE,)


def _shift(config: Path) -> float | None:
    """How far a flow's noise levels are shifted, if its scheduler says so."""
    path = config / "scheduler" / "scheduler_config.json"
    shift = read_json(path).get("shift") if path.is_file() else None
    return shift if isinstance(shift, int | float) else None


def _latent_channels(config: Path) -> int | None:
    path = config / "vae" / "config.json"
    vae = read_json(path) if path.is_file() else {}
    channels = vae.get("latent_channels", vae.get("z_dim"))
    return channels if isinstance(channels, int) else None


def _factor(config: Path) -> int:
    """Pixels per latent pixel, along a side."""
    vae = read_json(config / "vae" / "config.json")
    if vae.get("temperal_downsample"):  # AutoencoderKLQwenImage: a level beside each
        return int(2 ** len(vae["temperal_downsample"]))
    levels = vae.get("block_out_channels") or vae.get("encoder_block_out_channels")
    return 8 if levels is None else int(2 ** (len(levels) - 1))


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


def _largest(core: dict[str, Any], family: Family, token: int) -> int:
    """Pixels a side for which its network has positions; `MAX_SIDE` if it says none.

    Args:
        token: pixels a side of a token.
    """
    if (positions := core.get("pos_embed_max_size")) is None:
        return MAX_SIDE
    return token * (math.isqrt(positions) if family.positions_in_all else int(positions))


def _limits(
    native: int, multiple: int, layers: int, references: int = 0, largest: int = MAX_SIDE
) -> ModelLimits:
    return ModelLimits(
        min_side=max(64, native // 4),
        max_side=min(native * 4, largest),
        max_pixels=4 * native * native,
        multiple_of=max(multiple, 8),  # sizes in requests are multiples of 8
        max_clip_skip=min(layers, MAX_CLIP_SKIP),
        max_references=references,
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
    max_references: int | None = Field(None, ge=0, le=MAX_REFERENCES)


class Notes(Schema):
    """The owner's notes on a model. docs/models.md explains each key.

    Attributes:
        config: of a single file: an embedded one, or a folder in `configs/`.
        vae: file or folder in `vae/` that replaces the model's own.
        parts: of a single file of one network, the files in `text_encoders/` and `vae/` that hold
            its other parts, by the parts' names.
        quantize: what its transformer is quantised to when it is loaded, instead of what the
            settings say.
        tiny_vae: file or folder in `vae/` of a small VAE, used if the settings say so.
        latent_rgb: for previews, a row of red, green and blue for each latent channel, and one of
            offsets.
        words: the nouns that a small model knows, between spaces; a job whose prompt has none of
            them says so.
    """

    description: str = Field("", max_length=1000)
    note: str = Field("", max_length=300)
    examples: tuple[str, ...] = Field((), max_length=20)
    sizes: tuple[PictureSize, ...] = Field((), max_length=20)
    defaults: NotedDefaults = NotedDefaults()
    limits: NotedLimits = NotedLimits()
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = None
    rescale_betas_zero_snr: bool | None = None
    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None
    config: str | None = None
    vae: str | None = None
    quantize: Literal["none", "int8", "fp8"] | None = None
    parts: Mapping[str, str] = Field({}, max_length=8)
    tiny_vae: str | None = None
    latent_rgb: tuple[tuple[FiniteFloat, FiniteFloat, FiniteFloat], ...] | None = None
    words: str = ""


# Keys of notes that other programs write too, into files of the same name.
SHARED_KEYS = frozenset({"description", "vae", "notes"})


def read_sidecar(listed: Listed) -> tuple[Notes, tuple[str, ...]]:
    """Read the owner's notes on a single file, and say which other files were passed over, and why.

    `NAME.darkroom.json` is always the owner's. `NAME.json` is if all its keys are those of notes;
    A1111 and programs that download models write files of that name as well.

    Raises:
        UnusableError: it is the owner's, and something in it is wrong; names it.
    """
    ours, shared = (next(listed.beside(ending), None) for ending in (OURS, SHARED))
    if ours is not None:
        passed_over = () if shared is None else (f"{shared.name} is not read beside {ours.name}",)
        return read_notes(ours), passed_over
    if shared is None:
        return Notes(), ()
    reason = _why_not_ours(shared)
    return (read_notes(shared), ()) if reason is None else (Notes(), (reason,))


def _why_not_ours(path: Path) -> str | None:
    """Why a file is another program's; None if it is ours.

    One that is no JSON is ours if it has a key that only notes have.
    """
    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8-sig")
        found = json.loads(text)
    except (FileNotFoundError, UnicodeDecodeError):
        return f"{path.name} is no text in UTF-8, and was passed over"
    except OSError as error:
        if error.errno == errno.EFBIG:
            return f"{path.name} is larger than notes are, and was passed over"
        return None  # reading it says why
    except (ValueError, RecursionError):
        own = Notes.model_fields.keys() - SHARED_KEYS
        ours = any(f'"{key}"' in text for key in own)
        return None if ours else f"{path.name} is no JSON, and was passed over"
    if not isinstance(found, dict):
        return f"{path.name} holds no JSON object, and was passed over"
    strange = next((key for key in found if key not in Notes.model_fields), None)
    if strange is None:
        return None
    close = did_you_mean(strange, Notes.model_fields)
    return (
        f"{path.name} is another program's, as {strange:.100} is no key of ours{close}; only what "
        "describes the model is read of it"
    )


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
