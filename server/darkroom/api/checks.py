"""What a model can do of what a request asks: sizes, latents, LoRAs, and the rest."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from darkroom import destinations
from darkroom.api.errors import pointer
from darkroom.api.sources import Source
from darkroom.catalog import loras, schedulers
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.model_spec import ModelSpec
from darkroom.catalog.models import ModelEntry
from darkroom.destinations import Destination, DestinationError
from darkroom.images.decoder import Decoded
from darkroom.requests import (
    Img2ImgRequest,
    InpaintRequest,
    Lora,
    MaskedContent,
    Txt2ImgRequest,
)
from darkroom.responses import FieldError, ModelInfo

# Optional fields that not every model takes: which do, and what the others lack.
SUPPORTED: Mapping[str, tuple[Callable[[ModelSpec], bool], str]] = MappingProxyType(
    {
        "guidance_rescale": (
            lambda spec: spec.guided,
            "has no classifier-free guidance that this server could rescale",
        )
    }
)


def check_fields(
    asked: Txt2ImgRequest, model: ModelInfo, sources: Mapping[str, Source]
) -> list[FieldError]:
    """Errors that follow from the model, the pictures, or several fields together."""
    errors = []
    if "\x00" in asked.prompt + asked.negative_prompt:
        name = "prompt" if "\x00" in asked.prompt else "negative_prompt"
        errors.append(FieldError(pointer=pointer(name), detail="holds a NUL character"))
    if asked.scheduler is not None:
        try:
            schedulers.check(asked.scheduler, model)
        except schedulers.UnknownSchedulerError as error:
            errors.append(FieldError(pointer="#/scheduler", detail=str(error)))
    if asked.clip_skip > model.limits.max_clip_skip:
        detail = f"{model.name} has layers to leave out up to {model.limits.max_clip_skip}"
        errors.append(FieldError(pointer="#/clip_skip", detail=detail))
    if isinstance(asked, Img2ImgRequest | InpaintRequest):
        steps = asked.num_inference_steps or model.defaults.num_inference_steps
        if int(steps * asked.strength) < 1:
            detail = f"leaves no step of {steps} to do; it must be at least {1 / steps:.3g}"
            errors.append(FieldError(pointer="#/strength", detail=detail))
    errors += check_latents(asked, model, sources.get("image"))
    if isinstance(asked, InpaintRequest) and len(sources) == 2:
        image, mask = sources["image"], sources["mask_image"]
        if image.size != mask.size:
            have, want = ("{}×{}".format(*s.size) for s in (mask, image))
            detail = f"is {have}, but the image is {want}"
            errors.append(FieldError(pointer="#/mask_image", detail=detail))
        elif mask.upload is not None and _covers_nothing(mask.upload, asked.invert_mask):
            detail = "marks nothing to repaint"
            errors.append(FieldError(pointer="#/mask_image", detail=detail))
    return errors


def _covers_nothing(mask: Decoded, inverted: bool) -> bool:
    return mask.darkest == 255 if inverted else mask.lightest == 0


def check_support(asked: Txt2ImgRequest, model: ModelEntry) -> list[FieldError]:
    """Errors of optional fields that this model does not take."""
    errors = []
    for name in SUPPORTED:
        default = type(asked).model_fields[name].default
        reason = why_unsupported(name, model) if getattr(asked, name) != default else None
        if reason is not None:
            errors.append(FieldError(pointer=pointer(name), detail=reason))
    return errors


def why_unsupported(name: str, model: ModelEntry) -> str | None:
    """Why a model does not take an optional field; None if it does."""
    supported, reason = SUPPORTED.get(name, (None, ""))
    if supported is None or supported(model.spec):
        return None
    return f"{model.info.name} {reason}"


class HasSize(Protocol):
    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""


def choose_size(asked: Txt2ImgRequest, model: ModelInfo, source: HasSize | None) -> tuple[int, int]:
    """Width and height of the images, in pixels.

    A size in the request is used. Otherwise img2img and inpaint take the source's size, fitted to
    the model; txt2img, and inpaint of the mask's surroundings only, take the model's default.
    """
    width, height = model.defaults.width, model.defaults.height
    crops = isinstance(asked, InpaintRequest) and asked.padding_mask_crop is not None
    if source is not None and not crops:
        width, height = fit_size(*source.size, model)
    return asked.width or width, asked.height or height


def fit_size(width: int, height: int, model: ModelInfo) -> tuple[int, int]:
    """The nearest size that a model can do, in about the same proportions.

    A larger one, such as a phone's photograph, is reduced to as many pixels as the model was
    trained on, where it is best and fastest.
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


def check_size(width: int, height: int, model: ModelInfo) -> list[FieldError]:
    """Errors of a size; empty if the model can do it."""
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


def has_latents(model: ModelInfo) -> bool:
    """Whether a model's latents are accessible; those of an unbatched pipeline are not."""
    return model.defaults.scheduler != schedulers.NATIVE


def encodable(width: int, height: int, model: ModelInfo) -> bool:
    """Whether a picture of so many pixels can be encoded without resizing it."""
    limits = model.limits
    sides = limits.multiple_of <= min(width, height) and max(width, height) <= limits.max_side
    return sides and width * height <= limits.max_pixels


def check_latents(
    asked: Txt2ImgRequest, model: ModelInfo, source: HasSize | None
) -> list[FieldError]:
    """Errors of fields that work on latents."""
    resizes = isinstance(asked, Img2ImgRequest) and asked.latent_resize is not None
    refills = (
        isinstance(asked, InpaintRequest) and asked.masked_content is not MaskedContent.ORIGINAL
    )
    field = "latent_resize" if resizes else "masked_content"
    if (resizes or refills) and not has_latents(model):
        detail = f"{model.name} gives no access to its latents: its pipeline is run whole"
        return [FieldError(pointer=pointer(field), detail=detail)]
    if resizes and source is not None and not encodable(*source.size, model):
        limits = model.limits
        detail = (
            f"the picture is {source.size[0]}×{source.size[1]}; {model.name} encodes sides of "
            f"{limits.multiple_of} to {limits.max_side} and {limits.max_pixels} pixels in all"
        )
        return [FieldError(pointer=pointer(field), detail=detail)]
    return []


def check_loras(
    asked: Sequence[Lora], model: ModelEntry, adapters: AdapterCatalog
) -> list[FieldError]:
    """Errors of LoRAs that are not there or do not fit the model."""
    errors = []
    text_dim = loras.model_text_dim(model.config) if asked else None
    seen: set[str] = set()
    for index, lora in enumerate(asked):
        if lora.name in seen:
            detail: str | None = f"{lora.name} is asked for twice; add up the scales"
        else:
            detail = _check_lora(lora, model, text_dim, adapters)
        if detail is not None:
            errors.append(FieldError(pointer=pointer("loras", index, "name"), detail=detail))
        seen.add(lora.name)
    return errors


def _check_lora(
    lora: Lora, model: ModelEntry, text_dim: int | None, adapters: AdapterCatalog
) -> str | None:
    try:
        found = adapters.loras.find(lora.name)
    except loras.UnknownLoraError as error:
        return str(error)
    return loras.misfit(found.info, model.info.name, text_dim)


def find_webhook(
    url: str | None, allowed: Sequence[str]
) -> tuple[Destination | None, list[FieldError]]:
    """The address in a `webhook` field, None without one, and its errors.

    Args:
        url: the field's value.
        allowed: prefixes that the owner allows. No error names them: paths may be secrets.
    """
    if url is None:
        return None, []
    try:
        if not allowed:
            raise DestinationError(
                "this server calls nobody; its owner can allow it in webhooks.allow"
            )
        found = destinations.parse(url)
        if not destinations.is_allowed(found, allowed):
            raise DestinationError(
                "is not below an address that the owner allows in webhooks.allow"
            )
    except DestinationError as error:
        return None, [FieldError(pointer=pointer("webhook"), detail=str(error))]
    return found, []
