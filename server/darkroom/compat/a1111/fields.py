"""The fields of A1111's requests, with its defaults, and what its prompts say besides text."""

import math
import operator
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

from flask import request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from darkroom.api import lora_tags
from darkroom.api.context import context
from darkroom.api.errors import ProblemError, invalid, pointer
from darkroom.api.parse import validate
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.model_entry import ModelEntry
from darkroom.compat.a1111 import infotext
from darkroom.compat.ignored import Ignored
from darkroom.requests import MAX_PROMPT_CHARS, MAX_SEED
from darkroom.responses import FieldError

MAX_INIT_IMAGES = 16
FURTHEST = 2**63  # from 0, of whole numbers; clients can send thousands of digits

# Fields that never change the picture: where it is kept, and the server's state afterwards, are
# not a client's to decide.
HARMLESS = frozenset(
    {
        *("save_images", "do_not_save_samples", "do_not_save_grid", "force_task_id"),
        *("override_settings_restore_afterwards", "infotext", "comments"),
    }
)
# Values that ask for nothing. So do 0, false and empty values of every field.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "eta": (1.0,),
    "s_noise": (1.0,),
    "seed_resize_from_h": (-1,),
    "seed_resize_from_w": (-1,),
    "initial_noise_multiplier": (1.0,),
    "image_cfg_scale": (1.5, 7.0),
    "refiner_switch_at": (0.8, 1.0),
}
# Fields of A1111's that are not read here, but that its answers repeat, but for pictures.
REPEATED = (
    HARMLESS
    | NEUTRAL.keys()
    | {
        *("styles", "restore_faces", "tiling", "s_min_uncond", "s_churn", "s_tmax", "s_tmin"),
        *("refiner_checkpoint", "disable_extra_networks", "firstphase_width", "firstphase_height"),
        *("mask_blur_x", "mask_blur_y", "mask_round"),
    }
)

EXTRA_NETWORK = re.compile(r"<[a-z]{1,20}:[^:<>]{1,200}(?::[^<>]*)?>")
# Each match attempt starts at a bracket and ends at the next one, so time is linear in the length.
SYNTAX = (
    ("[from:to:when]", re.compile(r"(?<!\\)\[[^\[\]]*:\s*[0-9.]+\s*\]")),
    ("[a|b]", re.compile(r"(?<!\\)\[[^\[\]|]*\|[^\[\]]*\]")),
    ("AND", re.compile(r"\bAND\b")),
)


def _rounded(value: Any) -> Any:
    """A number rounded to an integer: clients compute numbers, and send 20.0 or 20.4 for 20.

    One that no float holds is the largest or the least that a field can have any use for.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if isinstance(value, float) and abs(value) < FURTHEST:
        return round(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return min(FURTHEST, max(-FURTHEST, value))
    return value


def _seed(value: Any) -> int | None:
    """A seed sent as a number or as text; None, which is a random one, if negative or no number."""
    if isinstance(value, str):
        try:
            value = int(value.strip()[:40])
        except ValueError:
            value = _number(value)
    if isinstance(value, float):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return None
    return value % (MAX_SEED + 1)


def _number(value: Any) -> float | None:
    """A number, sent as one or as text; None for anything else, and if it is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> Any:
    """A string; None for a value of another type."""
    return value if isinstance(value, str) else None


RoundedInt = Annotated[int, BeforeValidator(_rounded)]
Seed = Annotated[int | None, BeforeValidator(_seed)]
Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARS)]
ShortText = Annotated[str, Field(max_length=300)]
IS_NAME = BeforeValidator(_text)
Name = Annotated[ShortText | None, IS_NAME]


class Settings(BaseModel):
    """The fields of both tasks. Unknown fields are kept, to be named as ignored."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    prompt: Prompt = ""
    negative_prompt: Prompt = ""
    seed: Seed = None
    subseed: Seed = None
    subseed_strength: float = 0.0
    steps: RoundedInt = 50
    cfg_scale: float = 7.0
    width: RoundedInt | None = None
    height: RoundedInt | None = None
    batch_size: RoundedInt = 1
    n_iter: RoundedInt = 1
    sampler_name: Name = None
    sampler_index: Name = None
    scheduler: Name = None
    denoising_strength: float = 0.75
    clip_skip: RoundedInt | None = None
    override_settings: dict[str, Any] = Field(default_factory=dict)
    alwayson_scripts: dict[str, Any] = Field(default_factory=dict)
    script_name: Name = None
    script_args: list[Any] = Field(default_factory=list, max_length=100)
    send_images: bool = True
    guidance_rescale: float = Field(0.0, exclude_if=operator.not_)  # ours, under our name


class Txt2Img(Settings):
    """The fields of txt2img: those of hires fix."""

    enable_hr: bool = False
    hr_scale: float = Field(2.0, gt=0, le=16)
    hr_upscaler: Name = None
    hr_second_pass_steps: RoundedInt = 0
    hr_resize_x: RoundedInt = 0
    hr_resize_y: RoundedInt = 0
    hr_sampler_name: Name = None
    hr_scheduler: Name = None
    hr_checkpoint_name: Name = None
    hr_prompt: Prompt = ""
    hr_negative_prompt: Prompt = ""


class Img2Img(Settings):
    """The fields of img2img: init images and a mask."""

    init_images: list[str] = Field(default_factory=list, max_length=MAX_INIT_IMAGES)
    mask: str | None = None
    mask_blur: RoundedInt = 4
    inpainting_fill: RoundedInt = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: RoundedInt = 0
    inpainting_mask_invert: bool = False
    resize_mode: RoundedInt = 0
    include_init_images: bool = False


Fields = TypeVar("Fields", bound=BaseModel)


def read(model: type[Fields]) -> tuple[Fields, str, Ignored]:
    """The current request's body as a model, a digest of the request, and what could not be used.

    Null and empty strings count as left out. Generating fills what is left out from `infotext`.

    Raises:
        ProblemError: 400, 413, 415 or 422.
    """
    body = context().bodies.read_any_json()
    given = {name: value for name, value in body.fields.items() if value not in (None, "")}
    ignored = Ignored()
    if issubclass(model, Settings):
        given = infotext.fill(given, model.model_fields, ignored)
    asked = validate(model, given)
    ignored.add(*_misread(given, asked))
    return asked, body.digest(request.path), ignored


def _misread(given: Mapping[str, Any], asked: BaseModel) -> Iterator[str]:
    """Names of the fields that were read as something else than was sent."""
    for name, field in type(asked).model_fields.items():
        if IS_NAME in field.metadata and not isinstance(given.get(name, ""), str):
            yield name
    if isinstance(asked, Settings) and "seed" in given:
        sent, number = str(given["seed"]).strip(), _number(given["seed"])
        same = asked.seed is not None and (sent == str(asked.seed) or number == asked.seed)
        if not same and (number is None or number >= 0):  # a negative one asks for any
            yield "seed"


def wrong(detail: str, *field: str | int) -> ProblemError:
    """The error for the field at this path."""
    return invalid([FieldError(pointer=pointer(*field), detail=detail)])


def unused_fields(asked: Settings) -> Iterator[str]:
    """Names of the fields that ask for something the server does not do."""
    for name, value in (asked.model_extra or {}).items():
        harmless = name in HARMLESS or name.startswith("hr_")
        if not harmless and value and value not in NEUTRAL.get(name, ()):
            yield name
    for name, script in asked.alwayson_scripts.items():
        arguments = script.get("args") if isinstance(script, dict) else script
        if any(arguments) if isinstance(arguments, list) else arguments:
            yield f"alwayson_scripts.{name}"
    if asked.subseed_strength:
        yield from ("subseed", "subseed_strength")


def translate_prompt(
    prompt: str, field: str, model: ModelEntry, adapters: AdapterCatalog, ignored: Ignored
) -> dict[str, Any]:
    """Our `prompt`, which has no tags, and `loras`: those in tags that exist and fit the model."""
    text, tags = lora_tags.split(prompt)
    loras, refused = lora_tags.apply(tags, (), model, adapters)
    for each in refused:
        unread = each.tag.scale is None or each.tag.text_scale is None
        ignored.add(f"{field} {each.tag.text if unread else f'<lora:{each.tag.name}>'}")
    ignored.add(*(f"{field} {tag[0]}" for tag in EXTRA_NETWORK.finditer(text)))
    text = EXTRA_NETWORK.sub("", text)
    note_unsupported(text, field, ignored)
    return {
        "prompt": text.strip() if text != prompt else prompt,
        "loras": tuple(lora.model_dump() for lora in loras),
    }


def note_unsupported(text: str, field: str, ignored: Ignored) -> None:
    """Add A1111's syntax in a prompt that is read as plain text instead."""
    ignored.add(*(f"{field} {name}" for name, pattern in SYNTAX if pattern.search(text)))
