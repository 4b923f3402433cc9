"""POST /sdapi/v1/extra-single-image and /extra-batch-images: larger copies of pictures."""

import base64
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify
from markupsafe import escape
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from darkroom.api import submit
from darkroom.api.context import context
from darkroom.api.errors import invalid, pointer
from darkroom.api.parsing import sources
from darkroom.compat.a1111 import bodies, networks, upscalers
from darkroom.compat.a1111.bodies import Body
from darkroom.compat.a1111.fields import Name, Whole
from darkroom.compat.a1111.networks import Small
from darkroom.compat.a1111.upscalers import Upscaler
from darkroom.compat.ignored import Ignored
from darkroom.images import codec, resize
from darkroom.images.decoder import Decoded, Purpose
from darkroom.images.resize import ResizeMode
from darkroom.requests import OutputFormat
from darkroom.responses import FieldError, Job

blueprint = Blueprint("a1111_extras", __name__, url_prefix="/sdapi/v1")

MAX_PIXELS = 16_777_216  # of an answer: 4096², whose PNG is made while the caller waits
MAX_PICTURES = 16
BY_SIZE = 1


def _data(value: Any) -> Any:
    """A batch's pictures come as {data, name}."""
    return value.get("data") if isinstance(value, dict) else value


class Extras(BaseModel):
    """What both routes know."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    resize_mode: Whole = 0
    upscaling_resize: float = Field(2.0, ge=0.05, le=16)
    upscaling_resize_w: Whole = Field(512, ge=1, le=codec.MAX_SIDE)
    upscaling_resize_h: Whole = Field(512, ge=1, le=codec.MAX_SIDE)
    upscaling_crop: bool = True
    upscaler_1: Name = None
    upscaler_2: Name = None
    extras_upscaler_2_visibility: float = 0.0


class Single(Extras):
    image: str = Field(min_length=1)


class Batch(Extras):
    image_list: list[Annotated[str, BeforeValidator(_data)]] = Field(
        alias="imageList", min_length=1, max_length=MAX_PICTURES, validation_alias="imageList"
    )


@blueprint.post("/extra-single-image")
def single() -> Response:
    """A larger copy of a picture."""
    body = bodies.read()
    asked = bodies.parse(Single, body.fields)
    images = [_decode(asked.image, "image")]
    return _enlarge(images, asked, body, lambda made: {"image": made[0]})


@blueprint.post("/extra-batch-images")
def batch() -> Response:
    """Larger copies of several."""
    body = bodies.read()
    asked = bodies.parse(Batch, body.fields)
    images = [_decode(text, "imageList", index) for index, text in enumerate(asked.image_list)]
    return _enlarge(images, asked, body, lambda made: {"images": made})


def _decode(text: str, *field: str | int) -> Decoded:
    try:
        return sources.decode(str(field[0]), text, Purpose.IMAGE)
    except codec.PictureError as error:
        raise invalid([FieldError(pointer=pointer(*field), detail=str(error))]) from None


def _enlarge(
    images: Sequence[Decoded],
    asked: Extras,
    body: Body,
    shape: Callable[[list[str]], dict[str, Any]],
) -> Response:
    """Answer with larger copies; `shape` gives the answer its fields from their base64."""
    upscaler = upscalers.find(asked.upscaler_1)
    ignored = Ignored()
    if not upscaler.same:
        ignored.add("upscaler_1")
    if asked.extras_upscaler_2_visibility and asked.upscaler_2 not in (None, upscalers.NONE):
        ignored.add("upscaler_2")
    ignored.add(*(name for name, value in (asked.model_extra or {}).items() if _asks(name, value)))
    small = [Small(image.png, (image.width, image.height), _size(image, asked)) for image in images]

    def then(_jobs: Sequence[Job], larger: Sequence[bytes | None]) -> Response:
        if None in larger:  # interrupted; what is left is done by the filter
            ignored.add("upscaler_1")
        made = [
            _finish(data or image.png, each.wanted, asked, upscaler)
            for data, image, each in zip(larger, images, small, strict=True)
        ]
        return _answer(ignored, **shape(made))

    if upscaler.network is None:
        return then((), [image.png for image in images])
    submit.check_room()
    return networks.enlarge(small, upscaler.network, body, then)


def _finish(png: bytes, size: tuple[int, int], asked: Extras, upscaler: Upscaler) -> str:
    """Bring a picture to its size; base64 of a PNG."""
    with context().rendering:
        picture = resize.read(png)
        if asked.resize_mode == BY_SIZE and asked.upscaling_crop:
            larger = resize.resize(picture, size, ResizeMode.CROP)
        else:
            larger = resize.enlarge(picture, size, upscaler.filter)
        return base64.b64encode(codec.encode(larger, OutputFormat.PNG)).decode()


def _size(image: Decoded, asked: Extras) -> tuple[int, int]:
    """Width and height in pixels; without cropping, as much as fits in.

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


def _asks(name: str, value: Any) -> bool:
    return bool(value) and name not in ("show_extras_results", "upscale_first")


def _answer(ignored: Ignored, **made: Any) -> Response:
    names = escape(", ".join(ignored.names))
    said = f"<p>Ignored: {names}</p>" if names else ""
    answer = jsonify(html_info=said, **made)
    answer.headers.update(ignored.headers)
    return answer
