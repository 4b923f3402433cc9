"""From OpenAI's fields to ours."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from darkroom.api.context import context
from darkroom.api.errors import ProblemError, field_errors, invalid
from darkroom.api.parsing import sizes, sources
from darkroom.catalog.models import UnknownModelError
from darkroom.compat.ignored import Ignored
from darkroom.compat.openai.fields import Sent
from darkroom.images import codec
from darkroom.images.decoder import Decoded, Purpose
from darkroom.requests import (
    MAX_IMAGES_PER_JOB,
    MAX_SEED,
    REQUEST_TYPES,
    OutputFormat,
    Task,
    Txt2ImgRequest,
)
from darkroom.responses import FieldError, ModelInfo

MAX_N = 10

# Ours under our own names, which are vLLM-Omni's too; clients send them as `extra_body`.
SAME = frozenset(
    {"prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "seed", "scheduler"}
    | {"loras", "clip_skip", "exact"}
)
SAME_BY_TASK = {
    Task.TXT2IMG: SAME,
    Task.IMG2IMG: SAME | {"strength", "latent_resize"},
    Task.INPAINT: SAME
    | {"strength", "mask_blur", "padding_mask_crop", "keep_unmasked", "masked_content"},
}
STRENGTHS = {"high": 0.5, "low": 0.75}  # of img2img, by how faithful it is to be

# Models that only OpenAI has. Programs name them because they know no others.
THEIRS = re.compile(r"(chatgpt-|gpt-)image[\w.-]*|dall-e[\w.-]*")
DALL_E = "dall-e"  # answers addresses where nothing else is asked for; later models base64

WITHOUT_EFFECT = (None, "", "auto")  # of a field that we do nothing with


class ResponseOptions(BaseModel):
    """Those of OpenAI's fields that we translate or answer by."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str | None = None
    n: int = Field(1, ge=1, le=MAX_N)
    size: str = Field("auto", pattern=r"^(auto|[1-9]\d{0,4}x[1-9]\d{0,4})$")
    response_format: Literal["url", "b64_json"] | None = None
    output_format: OutputFormat = OutputFormat.PNG
    stream: bool = False
    partial_images: int = Field(0, ge=0, le=3)
    input_fidelity: Literal["high", "low"] = "low"

    @property
    def wants_addresses(self) -> bool:
        if self.response_format is None:
            return (self.model or "").startswith(DALL_E)
        return self.response_format == "url"


@dataclass(frozen=True)
class Asked:
    """A request in our words.

    Attributes:
        task: what is to be done.
        request: of the task's type, for as many pictures as one job may make.
        more: pictures that another job has to make.
        files: pictures that came along, by our fields.
        options: how to answer.
        ignored: fields that had no effect.
        fingerprint: of what was sent.
    """

    task: Task
    request: Txt2ImgRequest
    more: int
    files: Mapping[str, bytes | Decoded]
    options: ResponseOptions
    ignored: Ignored
    fingerprint: str


def translate(task: Task, sent: Sent) -> Asked:
    """Say in our words what was asked for.

    Args:
        task: what is to be done; img2img becomes inpaint where a mask came along.
        sent: the request.

    Raises:
        ProblemError: 404 or 422, in our words, or 503.
    """
    if task is Task.IMG2IMG and ("mask" in sent.files or "mask" in sent.fields):
        task = Task.INPAINT
    fields = dict(sent.fields)
    options = _response_options(fields)
    model, foreign = _model(options.model)
    ours, fitted = _size(options.size, model)
    ours |= {name: fields[name] for name in SAME_BY_TASK[task] if name in fields}
    if ours.get("seed") in (-1, "-1"):  # how other programs ask for a random one
        del ours["seed"]
    if task is Task.IMG2IMG:
        ours.setdefault("strength", STRENGTHS[options.input_fidelity])
    if task is not Task.TXT2IMG and "image" in fields:
        ours["image"] = fields["image"]
    files: dict[str, bytes | Decoded] = {}
    if task is not Task.TXT2IMG and "image" in sent.files:
        files["image"] = sent.files["image"]
    if task is Task.INPAINT:
        files["mask_image"] = _cutout(sent.files.get("mask") or fields["mask"])
    ours |= {
        "model": model.name,
        "num_images": min(options.n, MAX_IMAGES_PER_JOB),
        "output_format": options.output_format,
    }
    try:
        request = REQUEST_TYPES[task].model_validate({**ours, **dict.fromkeys(files, "a file")})
    except ValidationError as error:
        raise invalid(field_errors(error, REQUEST_TYPES[task].model_fields)) from None
    known = {*ResponseOptions.model_fields, *ours, *files, "seed"}
    known |= {"mask"} if task is Task.INPAINT else set()
    known -= set() if task is Task.IMG2IMG else {"input_fidelity"}
    ignored = [name for name, value in fields.items() if name not in known and _is_said(value)]
    ignored += ["model"] * foreign + ["size"] * fitted + list(sent.spare)
    more = options.n - request.num_images
    return Asked(task, request, more, files, options, Ignored(*ignored), sent.fingerprint)


def rest_of(asked: Asked, first_seed: int) -> Txt2ImgRequest:
    """What the second job has to do, with the seeds that follow on those of the first.

    Args:
        asked: for more pictures than one job may make.
        first_seed: of the first job.
    """
    seed = (first_seed + asked.request.num_images) % (MAX_SEED + 1)
    return asked.request.model_copy(update={"num_images": asked.more, "seed": seed})


def _response_options(fields: Mapping[str, Any]) -> ResponseOptions:
    try:
        return ResponseOptions.model_validate(fields)
    except ValidationError as error:
        raise invalid(field_errors(error, ResponseOptions.model_fields)) from None


def _model(name: str | None) -> tuple[ModelInfo, bool]:
    """The model asked for, or the default one instead of one that only OpenAI has.

    Returns:
        The model, and whether it is instead of another.
    """
    catalog = context().catalog
    try:
        return catalog.find(name).info, False
    except UnknownModelError as error:
        if name is not None and THEIRS.fullmatch(name):
            return catalog.find(None).info, True
        wrong = FieldError(pointer="#/model", detail=str(error))
        raise ProblemError(404, "model", "No such model", str(error), [wrong]) from None


def _size(size: str, model: ModelInfo) -> tuple[dict[str, Any], bool]:
    """Width and height by name, and whether they are others than those asked for.

    A program offers the sizes of OpenAI's models, whatever model draws. What ours cannot do
    becomes the nearest that it can, in about the same proportions.
    """
    if size == "auto":
        return {}, False
    width, height = map(int, size.split("x"))
    fits = not sizes.check(width, height, model)
    if not fits:
        width, height = sizes.fit(width, height, model)
    return {"width": width, "height": height}, not fits


def _cutout(value: object) -> Decoded:
    """A mask in which transparency marks what is repainted."""
    if not isinstance(value, bytes | str):
        raise invalid([FieldError(pointer="#/mask", detail="is neither a file nor base64")])
    try:
        return sources.decode("mask", value, Purpose.CUTOUT)
    except codec.PictureError as error:
        raise invalid([FieldError(pointer="#/mask", detail=str(error))]) from None


def _is_said(value: object) -> bool:
    """Whether somebody may have counted on this having an effect."""
    return not (isinstance(value, str | None) and value in WITHOUT_EFFECT)
