"""POST /sdapi/v1/extra-single-image, /extra-batch-images and /png-info: for existing pictures."""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify
from markupsafe import escape
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from darkroom.api import submit
from darkroom.api.context import Context, context
from darkroom.api.errors import invalid
from darkroom.api.parse import check_bytes
from darkroom.api.sources import from_base64
from darkroom.compat.a1111 import answers
from darkroom.compat.a1111.child_jobs import Original, enlarge
from darkroom.compat.a1111.fields import Name, RoundedInt, read
from darkroom.compat.a1111.images import NO_UPSCALER, Upscaler, decode, find_upscaler
from darkroom.compat.ignored import Ignored
from darkroom.images import codec, metadata, resize
from darkroom.images.decoder import Decoded, Purpose
from darkroom.images.resize import ResizeMode
from darkroom.requests import MAX_PROMPT_CHARS, OutputFormat
from darkroom.responses import FieldError, Job

blueprint = Blueprint("a1111_extras", __name__, url_prefix="/sdapi/v1")

MAX_PIXELS = 16_777_216  # of an answer: 4096², whose PNG is made while the caller waits
MAX_PICTURES = 16
BY_SIZE = 1  # a value of `resize_mode`

NEGATIVE = "Negative prompt:"
MAX_INFOTEXT_CHARS = 4 * MAX_PROMPT_CHARS
# A name, and a value that is either a JSON string or free of commas.
SETTING = re.compile(r'\s*([\w][\w \-/]{0,99}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")
MIN_SETTINGS = 3  # in the last line; with fewer it belongs to the prompt


def _data(value: Any) -> Any:
    """The picture of a {data, name} object, which is how a batch sends them."""
    return value.get("data") if isinstance(value, dict) else value


class Extras(BaseModel):
    """The fields of both routes that enlarge. Unknown fields are kept, to be named as ignored."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    resize_mode: RoundedInt = 0
    upscaling_resize: float = Field(2.0, ge=0.05, le=16)
    upscaling_resize_w: RoundedInt = Field(512, ge=1, le=codec.MAX_SIDE)
    upscaling_resize_h: RoundedInt = Field(512, ge=1, le=codec.MAX_SIDE)
    upscaling_crop: bool = True
    upscaler_1: Name = None
    upscaler_2: Name = None
    extras_upscaler_2_visibility: float = 0.0
    show_extras_results: Any = None
    upscale_first: Any = None


class Single(Extras):
    """The fields of `/extra-single-image`."""

    image: str = Field(min_length=1)


class Batch(Extras):
    """The fields of `/extra-batch-images`."""

    image_list: list[Annotated[str, BeforeValidator(_data)]] = Field(
        alias="imageList", min_length=1, max_length=MAX_PICTURES, validation_alias="imageList"
    )


@blueprint.post("/extra-single-image")
def single() -> Response:
    """Enlarge a picture."""
    here = context()
    asked, digest = read(here, Single)
    originals = [decode(here.sources, asked.image, Purpose.IMAGE, "image")]
    return _enlarge(here, originals, asked, digest)


@blueprint.post("/extra-batch-images")
def batch() -> Response:
    """Enlarge several pictures."""
    here = context()
    asked, digest = read(here, Batch)
    originals = [
        decode(here.sources, text, Purpose.IMAGE, "imageList", index)
        for index, text in enumerate(asked.image_list)
    ]
    return _enlarge(here, originals, asked, digest)


@blueprint.post("/png-info")
def png_info() -> Response:
    """The texts in a PNG, and the settings in the one named `parameters`.

    The answer is empty for other formats, in which nothing is looked for.
    """
    here = context()
    image = here.bodies.read_any_json().fields.get("image")
    if not isinstance(image, str) or not image:
        raise invalid([FieldError(pointer="#/image", detail="is required")])
    try:
        data = from_base64(image)
    except codec.PictureError as error:
        raise invalid([FieldError(pointer="#/image", detail=str(error))]) from None
    check_bytes("image", len(data), here.settings.web.max_upload_bytes)
    try:
        items = metadata.read_texts(data)
    except metadata.NotPngError:
        items = {}
    info = items.get("parameters", "")
    return jsonify(info=info, items=items, parameters=parse_infotext(info))


def parse_infotext(text: str) -> dict[str, str]:
    """The prompts and settings in a text of A1111's format (`modules/infotext_utils.py`).

    Args:
        text: prompt, negative prompt, and a last line of settings; empty gives an empty dict.

    Returns:
        Values by A1111's names; a size as two, `Size-1` and `Size-2`.
    """
    text = text[:MAX_INFOTEXT_CHARS].strip()
    if not text:
        return {}
    *lines, last = text.split("\n")
    settings = SETTING.findall(last)
    if len(settings) < MIN_SETTINGS:
        lines, settings = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    current = prompt
    for line in lines:
        if line.startswith(NEGATIVE):
            current, line = negative, line.removeprefix(NEGATIVE).lstrip()
        current.append(line)
    found = {"Prompt": "\n".join(prompt).strip(), "Negative prompt": "\n".join(negative).strip()}
    for name, value in settings:
        plain = _unquote(value.strip())
        size = SIZE.fullmatch(plain)
        if size:
            found |= {f"{name}-1": size[1], f"{name}-2": size[2]}
        else:
            found[name] = plain
    return found


def _unquote(value: str) -> str:
    """The text of a JSON string; anything else as it is."""
    if not value.startswith('"'):
        return value
    try:
        text = json.loads(value)
    except ValueError:
        return value
    return text if isinstance(text, str) else value


def _enlarge(
    here: Context, images: Sequence[Decoded], asked: Single | Batch, digest: str
) -> Response:
    """Answer with enlarged copies of the pictures."""
    upscaler = find_upscaler(asked.upscaler_1, here.upscalers)
    ignored = Ignored()
    if not upscaler.same:
        ignored.add("upscaler_1")
    if asked.extras_upscaler_2_visibility and asked.upscaler_2 not in (None, NO_UPSCALER):
        ignored.add("upscaler_2")
    ignored.add(*(name for name, value in (asked.model_extra or {}).items() if value))
    originals = [
        Original(image.png, (image.width, image.height), _size(image, asked)) for image in images
    ]

    def answer(_jobs: Sequence[Job], larger: Sequence[bytes | None]) -> Response:
        if None in larger:  # interrupted; the filter enlarges alone
            ignored.add("upscaler_1")
        made = [
            answers.encode(_resize(here, data or original.data, original.wanted, asked, upscaler))
            for data, original in zip(larger, originals, strict=True)
        ]
        names = escape(", ".join(ignored.names))
        pictures = {"image": made[0]} if isinstance(asked, Single) else {"images": made}
        info = f"<p>Ignored: {names}</p>" if names else ""
        return ignored.sent_with(jsonify(html_info=info, **pictures))

    if upscaler.network is not None:
        submit.check_room()
    return enlarge(here, originals, upscaler.network, digest, answer)


def _resize(
    here: Context, data: bytes, size: tuple[int, int], asked: Extras, upscaler: Upscaler
) -> bytes:
    """A PNG of a picture in its wanted size."""
    with here.rendering:
        picture = resize.read(data)
        if asked.resize_mode == BY_SIZE and asked.upscaling_crop:
            larger = resize.resize(picture, size, ResizeMode.CROP)
        else:
            larger = resize.enlarge(picture, size, upscaler.filter)
        return codec.encode(larger, OutputFormat.PNG)


def _size(image: Decoded, asked: Extras) -> tuple[int, int]:
    """The wanted width and height in pixels; without cropping, the largest that fits inside.

    Raises:
        ProblemError: 422, it is too large.
    """
    width, height = asked.upscaling_resize_w, asked.upscaling_resize_h
    if asked.resize_mode != BY_SIZE or not asked.upscaling_crop:
        scale = asked.upscaling_resize
        if asked.resize_mode == BY_SIZE:
            scale = min(width / image.width, height / image.height)
        width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if width * height > MAX_PIXELS:
        detail = f"makes {width}×{height}; a larger copy may have {MAX_PIXELS} pixels"
        raise invalid([FieldError(pointer="#/upscaling_resize", detail=detail)])
    return width, height
