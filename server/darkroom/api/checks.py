"""What a model can do of what a request asks: sizes, latents, LoRAs, and the rest."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from darkroom import destinations
from darkroom.api.errors import pointer
from darkroom.catalog import loras, schedulers
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.model_entry import ModelEntry
from darkroom.destinations import Destination, DestinationError
from darkroom.errors import Message, message, text_of
from darkroom.images.codec import MARKED
from darkroom.images.decoder import Decoded
from darkroom.requests import (
    EditRequest,
    Img2ImgRequest,
    InpaintRequest,
    Lora,
    Txt2ImgRequest,
)
from darkroom.responses import FieldError, ModelInfo

# Optional fields that not every model takes, and what those that refuse them lack.
LACKS: Mapping[str, str] = MappingProxyType(
    {
        "negative_prompt": "takes no negative prompt",
        "guidance_scale": "is distilled to need no guidance; 1 or less turns it off",
        "guidance_rescale": "has no classifier-free guidance that this server could rescale",
        "loras": "takes no LoRAs here",
        "clip_skip": "leaves out no layers of its text encoder",
        "strength": "has no strength: it changes as much as the prompt says",
        "latent_resize": "gives no access to its latents",
        "padding_mask_crop": "repaints no crop around a mask, only whole pictures",
        "masked_content": "gives no access to its latents",
        "explain": "cannot be looked into",
    }
)

Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class Source:
    """A picture of a request.

    Attributes:
        upload: the decoded picture; None if it is one that is stored already.
        reference: `image:<id>`, of the stored picture or of the one to be stored.
    """

    upload: Decoded | None
    reference: str
    size: Size


def check(
    asked: Txt2ImgRequest,
    entry: ModelEntry,
    sources: Mapping[str, Source],
    adapters: AdapterCatalog,
) -> Iterator[FieldError]:
    """Errors that follow from the model, the pictures by field, or several fields together."""
    model = entry.info
    for name in LACKS.keys() - {"loras"}:
        reason = why_refused(type(asked), name, getattr(asked, name, None), model)
        if reason is not None:
            yield FieldError(pointer=pointer(name), detail=reason)
    if "\x00" in asked.prompt + asked.negative_prompt:
        name = "prompt" if "\x00" in asked.prompt else "negative_prompt"
        detail: str = message("nul_character", "holds a NUL character")
        yield FieldError(pointer=pointer(name), detail=detail)
    if asked.scheduler is not None:
        try:
            schedulers.check(asked.scheduler, model)
        except schedulers.UnknownSchedulerError as error:
            yield FieldError(pointer="#/scheduler", detail=text_of(error))
    if "clip_skip" in model.fields and asked.clip_skip > model.limits.max_clip_skip:
        detail = message(
            "clip_skip_limit",
            "{model} has layers to leave out up to {limit}",
            model=model.name,
            limit=model.limits.max_clip_skip,
        )
        yield FieldError(pointer="#/clip_skip", detail=detail)
    if isinstance(asked, Img2ImgRequest | InpaintRequest):
        steps = asked.num_inference_steps or model.defaults.num_inference_steps
        if entry.spec.family.steps_done(steps, asked.strength) < 1:
            detail = message(
                "no_step_left",
                "leaves no step of {steps} to do; it must be at least {least:.3g}",
                steps=steps,
                least=1 / steps,
            )
            yield FieldError(pointer="#/strength", detail=detail)
        yield from _check_latents(asked, model, sources)
    if isinstance(asked, EditRequest):
        for index, source in enumerate(sources.values()):
            reason = entry.spec.family.why_no_reference(*source.size)
            if reason is not None:
                yield FieldError(pointer=pointer("references", index), detail=reason)
    if isinstance(asked, InpaintRequest) and len(sources) == 2:
        image, mask = sources["image"], sources["mask_image"]
        if image.size != mask.size:
            detail = message(
                "mask_size",
                "is {width}×{height}, but the image is {image_width}×{image_height}",
                width=mask.size[0],
                height=mask.size[1],
                image_width=image.size[0],
                image_height=image.size[1],
            )
            yield FieldError(pointer="#/mask_image", detail=detail)
        elif mask.upload is not None and covers_nothing(mask.upload, asked.invert_mask):
            detail = message("mask_marks_nothing", "marks nothing to repaint")
            yield FieldError(pointer="#/mask_image", detail=detail)
    yield from check_loras(asked.loras, entry, adapters)


def covers_nothing(mask: Decoded, inverted: bool) -> bool:
    """Whether a mask marks no pixel to repaint."""
    return mask.darkest >= MARKED if inverted else mask.lightest < MARKED


def _check_latents(
    asked: Img2ImgRequest | InpaintRequest, model: ModelInfo, sources: Mapping[str, Source]
) -> Iterator[FieldError]:
    """Errors of a picture whose latents are resized."""
    resizes = isinstance(asked, Img2ImgRequest) and asked.latent_resize is not None
    if resizes and "latent_resize" in model.fields and "image" in sources:
        width, height = sources["image"].size
        limits = model.limits
        if not encodable(width, height, model):
            detail = (
                f"the picture is {width}×{height}; {model.name} encodes sides of "
                f"{limits.multiple_of} to {limits.max_side} and {limits.max_pixels} pixels in all"
            )
            yield FieldError(pointer="#/latent_resize", detail=detail)


def why_refused(
    kind: type[Txt2ImgRequest], name: str, value: object, model: ModelInfo
) -> str | None:
    """Why a model does not honour a field of a request; None if it does.

    It refuses none whose value is the default or asks for nothing.
    """
    if name in model.fields or name not in kind.model_fields or name not in LACKS:
        return None
    default = kind.model_fields[name].get_default(call_default_factory=True)
    off = name == "guidance_scale" and isinstance(value, int | float) and value <= 1
    return None if value is None or value == default or off else _refusal(name, model)


def _refusal(name: str, model: ModelInfo) -> Message:
    return message("no_" + name, "{model} " + LACKS[name], model=model.name)


def choose_size(asked: Txt2ImgRequest, entry: ModelEntry, source: Source | None) -> Size:
    """The size of the images.

    A size in the request is used. Otherwise img2img, inpaint and edit take the size of the source,
    which is an edit's first reference, fitted to the model; txt2img, and inpaint of the mask's
    surroundings only, take the model's default. Some models edit to one area, small pictures too.
    """
    model = entry.info
    width, height = model.defaults.width, model.defaults.height
    crops = isinstance(asked, InpaintRequest) and asked.padding_mask_crop is not None
    if source is not None and not crops:
        # Editing models work at the size that they were trained on.
        edits = isinstance(asked, EditRequest)
        most = width * height if edits else model.limits.max_pixels
        area = entry.spec.family.area if edits else None
        width, height = fit_size(*_enlarged(source.size, area), model, most)
    return asked.width or width, asked.height or height


def _enlarged(size: Size, area: int | None) -> Size:
    """A size of at least so many pixels, in the same proportions."""
    width, height = size
    scale = max(1.0, math.sqrt((area or 0) / (width * height)))
    return round(width * scale), round(height * scale)


def fit_size(width: int, height: int, model: ModelInfo, most: int | None = None) -> Size:
    """The nearest size that a model can do, in about the same proportions.

    One of more than `most` pixels, by default those of the model's limits, is reduced to as many as
    the model was trained on, where it is best and fastest: a phone's photograph for example.
    """
    limits = model.limits
    pixels = most or limits.max_pixels
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
            detail = message(
                "side_range",
                "{model} makes {least} to {most} pixels, not {side}",
                model=model.name,
                least=limits.min_side,
                most=limits.max_side,
                side=side,
            )
        elif side % limits.multiple_of:
            detail = message(
                "side_multiple",
                "must be a multiple of {multiple}, {side} is not",
                multiple=limits.multiple_of,
                side=side,
            )
        else:
            continue
        errors.append(FieldError(pointer=f"#/{name}", detail=detail))
    if not errors and width * height > limits.max_pixels:
        detail = message(
            "area_limit",
            "{width}×{height} is {pixels} pixels; {model} makes {most}",
            width=width,
            height=height,
            pixels=width * height,
            model=model.name,
            most=limits.max_pixels,
        )
        errors = [FieldError(pointer=f"#/{name}", detail=detail) for name in ("width", "height")]
    return errors


def encodable(width: int, height: int, model: ModelInfo) -> bool:
    """Whether a picture of so many pixels can be encoded without resizing it."""
    limits = model.limits
    sides = limits.multiple_of <= min(width, height) and max(width, height) <= limits.max_side
    return sides and width * height <= limits.max_pixels


def check_loras(
    asked: Sequence[Lora], model: ModelEntry, adapters: AdapterCatalog
) -> list[FieldError]:
    """Errors of LoRAs that are not there or do not fit the model."""
    if asked and "loras" not in model.info.fields:
        return [FieldError(pointer="#/loras", detail=_refusal("loras", model.info))]
    errors = []
    for index, lora in enumerate(asked):
        detail: str | None
        if any(other.name == lora.name for other in asked[:index]):
            detail = message(
                "lora_twice", "{name} is asked for twice; add up the scales", name=lora.name
            )
        else:
            try:
                detail = loras.misfit(adapters.loras.find(lora.name), model)
            except loras.UnknownLoraError as error:
                detail = text_of(error)
        if detail is not None:
            errors.append(FieldError(pointer=pointer("loras", index, "name"), detail=detail))
    return errors


def find_webhook(url: str, allowed: Sequence[str]) -> Destination:
    """The address in a `webhook` field, below one of the prefixes that the owner allows.

    Raises:
        DestinationError: it is not; says why. It names no prefix: paths may be secrets.
    """
    if not allowed:
        raise DestinationError("this server calls nobody; its owner can allow it in webhooks.allow")
    found = destinations.parse(url)
    if not destinations.is_allowed(found, allowed):
        raise DestinationError("is not below an address that the owner allows in webhooks.allow")
    return found
