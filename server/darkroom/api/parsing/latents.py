"""Whether a model can do what a request asks of its latents."""

from darkroom.api.errors import pointer
from darkroom.api.parsing.sizes import HasSize
from darkroom.catalog import schedulers
from darkroom.requests import Img2ImgRequest, InpaintRequest, MaskedContent, Txt2ImgRequest
from darkroom.responses import FieldError, ModelInfo


def accessible(model: ModelInfo) -> bool:
    """Whether its latents can be got at; a pipeline that is run whole keeps them to itself."""
    return model.defaults.scheduler != schedulers.NATIVE


def encodable(width: int, height: int, model: ModelInfo) -> bool:
    """Whether a picture of so many pixels may be encoded as it is."""
    limits = model.limits
    sides = limits.multiple_of <= min(width, height) and max(width, height) <= limits.max_side
    return sides and width * height <= limits.max_pixels


def check(asked: Txt2ImgRequest, model: ModelInfo, source: HasSize | None) -> list[FieldError]:
    """What is wrong with it."""
    resizes = isinstance(asked, Img2ImgRequest) and asked.latent_resize is not None
    refills = (
        isinstance(asked, InpaintRequest) and asked.masked_content is not MaskedContent.ORIGINAL
    )
    field = "latent_resize" if resizes else "masked_content"
    if (resizes or refills) and not accessible(model):
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
