"""Which width and height a request gets, and whether the model can do them."""

import math
from typing import Protocol

from darkroom.requests import InpaintRequest, Txt2ImgRequest
from darkroom.responses import FieldError, ModelInfo


class HasSize(Protocol):
    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""


def choose(asked: Txt2ImgRequest, model: ModelInfo, source: HasSize | None) -> tuple[int, int]:
    """Width and height in pixels.

    What was asked for goes. Else img2img and inpaint take the source's size, made to fit the
    model; txt2img, and inpaint of the mask's surroundings only, take the model's own.
    """
    width, height = model.defaults.width, model.defaults.height
    crops = isinstance(asked, InpaintRequest) and asked.padding_mask_crop is not None
    if source is not None and not crops:
        width, height = fit(*source.size, model)
    return asked.width or width, asked.height or height


def fit(width: int, height: int, model: ModelInfo) -> tuple[int, int]:
    """The size for a source of `width` × `height` pixels, in about its proportions.

    It stays what it is if the model can do it. A larger one, like any phone's photograph, comes
    down to as many pixels as the model was made for, where it draws best and fastest.
    """
    limits = model.limits
    pixels = limits.max_pixels
    if width * height > pixels or max(width, height) > limits.max_side:
        pixels = model.defaults.width * model.defaults.height
    scale = min(1.0, math.sqrt(pixels / (width * height)), limits.max_side / max(width, height))
    scale = max(scale, limits.min_side / min(width, height))
    step = limits.multiple_of
    sides = [
        min(max(round(side * scale / step) * step, limits.min_side), limits.max_side)
        for side in (width, height)
    ]
    while sides[0] * sides[1] > limits.max_pixels and max(sides) > limits.min_side:
        longer = sides.index(max(sides))
        sides[longer] -= step
    return sides[0], sides[1]


def check(width: int, height: int, model: ModelInfo) -> list[FieldError]:
    """What is wrong with a size, a finding each."""
    limits = model.limits
    errors = []
    for name, side in (("width", width), ("height", height)):
        if not limits.min_side <= side <= limits.max_side:
            detail = f"{model.name} makes {limits.min_side} to {limits.max_side} pixels, not {side}"
        elif side % limits.multiple_of:
            detail = f"must be a multiple of {limits.multiple_of}, {side} is not"
        else:
            continue
        errors.append(FieldError(pointer=f"#/{name}", detail=detail))
    if not errors and width * height > limits.max_pixels:
        detail = (
            f"{width}×{height} is {width * height} pixels; {model.name} makes {limits.max_pixels}"
        )
        errors = [FieldError(pointer=f"#/{name}", detail=detail) for name in ("width", "height")]
    return errors
