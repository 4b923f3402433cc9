"""Pictures of a request: init images and masks made to fit, and the upscalers to enlarge them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darkroom.api import checks
from darkroom.api.context import Context
from darkroom.api.errors import ProblemError, invalid, pointer
from darkroom.api.sources import Sources
from darkroom.catalog.upscalers import UpscalerCatalog
from darkroom.compat.a1111.fields import Img2Img
from darkroom.compat.a1111.translate import Translated, clamp
from darkroom.images import codec, resize
from darkroom.images.decoder import Decoded, Purpose
from darkroom.images.resize import Filter, ResizeMode
from darkroom.requests import LatentResize, MaskedContent, Task
from darkroom.responses import FieldError, UpscalerInfo

MAX_BLUR = 256  # pixels, as is the padding
MAX_PADDING = 4096
FILL_FROM_AROUND, FILL_ORIGINAL = 0, 1  # values of `inpainting_fill`
FILLS = {2: MaskedContent.NOISE, 3: MaskedContent.NOTHING}
RESIZE_LATENTS = 3  # a value of `resize_mode`

NO_UPSCALER = "None"
LANCZOS = "Lanczos"
NEAREST = "Nearest"
FILTERS = (NO_UPSCALER, LANCZOS, NEAREST)
LATENT_UPSCALERS = {
    "Latent": LatentResize.BILINEAR,
    "Latent (antialiased)": LatentResize.BILINEAR_ANTIALIASED,
    "Latent (bicubic)": LatentResize.BICUBIC,
    "Latent (bicubic antialiased)": LatentResize.BICUBIC_ANTIALIASED,
    "Latent (nearest)": LatentResize.NEAREST,
    "Latent (nearest-exact)": LatentResize.NEAREST_EXACT,
}
# A1111's names of the files it downloads (`modules/realesrgan_model.py`), in lower case.
FILES = {
    "r-esrgan 4x+": "realesrgan_x4plus",
    "r-esrgan 4x+ anime6b": "realesrgan_x4plus_anime_6b",
    "r-esrgan 2x+": "realesrgan_x2plus",
}


@dataclass(frozen=True)
class InitImage:
    """A picture to start from: the task, and the values and PNGs of its fields in our request."""

    task: Task
    values: Mapping[str, Any]
    files: Mapping[str, bytes]


def read_init_images(here: Context, asked: Img2Img, translated: Translated) -> list[InitImage]:
    """Decode all init images, and make them and the mask fit the request's size.

    The task is inpaint if there is a mask that marks anything, else img2img.

    Raises:
        ProblemError: 404 without an init image, 413, 422 or 503.
    """
    texts = _init_images(asked, len(asked.init_images))
    mask = None if asked.mask is None else decode(here.sources, asked.mask, Purpose.MASK, "mask")
    if mask is not None and _is_blank(mask, asked.inpainting_mask_invert):
        translated.ignored.add("mask")  # as in A1111: a blank mask means img2img
        mask = None
    found = []
    for index, text in enumerate(texts):
        image = decode(here.sources, text, Purpose.IMAGE, "init_images", index)
        if (
            asked.resize_mode == RESIZE_LATENTS
            and mask is None
            and checks.has_latents(translated.model.info)
            and checks.encodable(image.width, image.height, translated.model.info)
        ):
            values = {"latent_resize": LatentResize.BILINEAR}
            found.append(InitImage(Task.IMG2IMG, values, {"image": image.png}))
            continue
        mode = _resize_mode(asked, translated)
        with here.rendering:
            if mask is None:
                found.append(_img2img(image, mode, translated))
            else:
                found.append(_inpaint(image, mask, mode, asked, translated))
    return found


def first_init_image(here: Context, asked: Img2Img) -> Decoded:
    """The first init image, in its own size.

    Raises:
        ProblemError: as `read_init_images`.
    """
    return decode(here.sources, _init_images(asked, 1)[0], Purpose.IMAGE, "init_images", 0)


def decode(sources: Sources, text: str, purpose: Purpose, *field: str | int) -> Decoded:
    """Decode a picture in base64.

    Args:
        sources: decode it.
        text: the base64.
        purpose: what it is used for.
        field: path of the field, for the error.

    Raises:
        ProblemError: 413, 422 or 503.
    """
    try:
        return sources.decode(str(field[0]), text, purpose)
    except codec.PictureError as error:
        raise invalid([FieldError(pointer=pointer(*field), detail=str(error))]) from None


def _init_images(asked: Img2Img, count: int) -> Sequence[str]:
    """The first `count` init images, of which there must be at least one and none empty."""
    found = asked.init_images[:count]
    if not found or not all(found):
        raise ProblemError(404, "init-image", "Init image not found", "init_images has none")
    return found


def _img2img(image: Decoded, mode: ResizeMode, translated: Translated) -> InitImage:
    """An init image without a mask. Stretching is left to the job."""
    png = image.png
    if mode is not ResizeMode.STRETCH and (image.width, image.height) != translated.size:
        png = codec.encode_quickly(resize.resize(resize.read(png), translated.size, mode))
    return InitImage(Task.IMG2IMG, {}, {"image": png})


def _inpaint(
    image: Decoded, mask: Decoded, mode: ResizeMode, asked: Img2Img, translated: Translated
) -> InitImage:
    """An init image and the mask in its size, with the masked area filled as asked for."""
    ignored = translated.ignored
    picture, hole = resize.read(image.png), resize.read(mask.png)
    if hole.size != picture.size:
        hole = resize.resize(hole, picture.size, ResizeMode.STRETCH)
    if not asked.inpaint_full_res and mode is not ResizeMode.STRETCH:
        picture = resize.resize(picture, translated.size, mode)
        hole = resize.resize(hole, translated.size, mode)
    content = MaskedContent.ORIGINAL
    if asked.inpainting_fill == FILL_FROM_AROUND:
        inverted = asked.inpainting_mask_invert
        marked = hole.point([255 - value for value in range(256)]) if inverted else hole
        picture = resize.fill_from_around(picture, marked)
    elif asked.inpainting_fill in FILLS and checks.has_latents(translated.model.info):
        content = FILLS[asked.inpainting_fill]
    elif asked.inpainting_fill != FILL_ORIGINAL:
        ignored.add("inpainting_fill")
    name = "inpaint_full_res_padding"
    padding = clamp(asked.inpaint_full_res_padding, 0, MAX_PADDING, name, ignored)
    values = {
        "invert_mask": asked.inpainting_mask_invert,
        "mask_blur": clamp(asked.mask_blur, 0, MAX_BLUR, "mask_blur", ignored),
        "padding_mask_crop": padding if asked.inpaint_full_res else None,
        "masked_content": content,
    }
    files = {"image": codec.encode_quickly(picture), "mask_image": codec.encode_quickly(hole)}
    return InitImage(Task.INPAINT, values, files)


def _is_blank(mask: Decoded, inverted: bool) -> bool:
    """Whether a mask marks nothing."""
    return mask.darkest == 255 if inverted else mask.lightest == 0


def _resize_mode(asked: Img2Img, translated: Translated) -> ResizeMode:
    """How pictures of another size are made to fit; stretching if the mode is not known."""
    if asked.resize_mode in tuple(ResizeMode):
        return ResizeMode(asked.resize_mode)
    translated.ignored.add("resize_mode")
    return ResizeMode.STRETCH


@dataclass(frozen=True)
class Upscaler:
    """How pictures are enlarged.

    Attributes:
        filter: interpolation between pixels; after a network, for the rest of the way.
        same: whether it is what the request named, and not a substitute.
        network: the network that goes first, or None.
    """

    filter: Filter
    same: bool
    network: UpscalerInfo | None = None


def upscaler_names(catalog: UpscalerCatalog) -> tuple[str, ...]:
    """All upscalers but those of latents: filters, then networks."""
    return (*FILTERS, *(entry.info.name for entry in catalog.entries()))


def find_upscaler(name: str | None, catalog: UpscalerCatalog) -> Upscaler:
    """The upscaler of a name; one that is not installed is replaced by a filter."""
    wanted = (name or LANCZOS).strip().lower()
    if wanted in (NO_UPSCALER.lower(), LANCZOS.lower()):
        return Upscaler(Filter.LANCZOS, same=True)
    if wanted == NEAREST.lower():
        return Upscaler(Filter.NEAREST, same=True)
    for entry in catalog.entries():
        if entry.info.name.lower() in (wanted, FILES.get(wanted)):
            return Upscaler(Filter.LANCZOS, same=True, network=entry.info)
    return Upscaler(Filter.NEAREST if "nearest" in wanted else Filter.LANCZOS, same=False)


def find_latent_upscaler(name: str | None) -> LatentResize | None:
    """How latents are enlarged; the default without a name, None for another upscaler's name."""
    if not name:
        return LatentResize.BILINEAR
    known = {label.lower(): mode for label, mode in LATENT_UPSCALERS.items()}
    return known.get(name.lower())
