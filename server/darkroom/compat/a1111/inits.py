"""The pictures of an img2img request: made to fit, and what lies under the mask prepared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.api.context import context
from darkroom.api.errors import ProblemError, invalid, pointer
from darkroom.api.parsing import latents, sources
from darkroom.compat.a1111.fields import Img2Img
from darkroom.compat.a1111.translate import Translated, within
from darkroom.images import codec, resize
from darkroom.images.decoder import Decoded, Purpose
from darkroom.images.resize import ResizeMode
from darkroom.requests import LatentResize, MaskedContent, Task
from darkroom.responses import FieldError

MAX_BLUR = 256
MAX_PADDING = 4096
CONTENTS = {2: MaskedContent.NOISE, 3: MaskedContent.NOTHING}
LATENT_UPSCALE = 3  # a resize mode


@dataclass(frozen=True)
class Init:
    """A picture ready to work from.

    Attributes:
        task: img2img, or inpaint where there is a mask.
        values: fields of our own request that come with it.
        files: PNGs by our fields' names.
    """

    task: Task
    values: Mapping[str, Any]
    files: Mapping[str, bytes]


def read(asked: Img2Img, translated: Translated) -> list[Init]:
    """One for each init image.

    Raises:
        ProblemError: 404 without an init image, 413, 422 or 503.
    """
    if not asked.init_images or not all(asked.init_images):
        raise ProblemError(404, "init-image", "Init image not found", "init_images has none")
    mask = None if asked.mask is None else _decode(asked.mask, Purpose.MASK, "mask")
    if mask is not None and _is_blank(mask, asked.inpainting_mask_invert):
        translated.ignored.add("mask")  # as there: nothing is marked, so all of it is img2img
        mask = None
    found = []
    for index, text in enumerate(asked.init_images):
        image = _decode(text, Purpose.IMAGE, "init_images", index)
        if asked.resize_mode == LATENT_UPSCALE and mask is None and _encodable(image, translated):
            found.append(
                Init(Task.IMG2IMG, {"latent_resize": LatentResize.BILINEAR}, {"image": image.png})
            )
            continue
        mode = _mode(asked, translated)
        with context().rendering:
            if mask is None:
                found.append(_whole(image, mode, translated))
            else:
                found.append(_masked(image, mask, mode, asked, translated))
    return found


def decode_first(asked: Img2Img) -> Decoded:
    """The first init image, as it is.

    Raises:
        ProblemError: as `read`.
    """
    if not asked.init_images or not asked.init_images[0]:
        raise ProblemError(404, "init-image", "Init image not found", "init_images has none")
    return _decode(asked.init_images[0], Purpose.IMAGE, "init_images", 0)


def _whole(image: Decoded, mode: ResizeMode, translated: Translated) -> Init:
    png = image.png
    if mode is not ResizeMode.STRETCH and (image.width, image.height) != translated.size:
        resized = resize.resize(resize.read(png), translated.size, mode)
        png = codec.encode_quickly(resized)
    return Init(Task.IMG2IMG, {}, {"image": png})


def _masked(
    image: Decoded, mask: Decoded, mode: ResizeMode, asked: Img2Img, translated: Translated
) -> Init:
    picture, hole = resize.read(image.png), resize.read(mask.png)
    if hole.size != picture.size:
        hole = resize.resize(hole, picture.size, ResizeMode.STRETCH)
    if not asked.inpaint_full_res and mode is not ResizeMode.STRETCH:
        picture = resize.resize(picture, translated.size, mode)
        hole = resize.resize(hole, translated.size, mode)
    marked = (
        hole.point([255 - value for value in range(256)]) if asked.inpainting_mask_invert else hole
    )
    content = MaskedContent.ORIGINAL
    match asked.inpainting_fill:
        case 0:
            picture = resize.fill_from_around(picture, marked)
        case 2 | 3 if latents.accessible(translated.model.info):
            content = CONTENTS[asked.inpainting_fill]
        case 1:
            pass
        case _:
            translated.ignored.add("inpainting_fill")
    padding = within(
        asked.inpaint_full_res_padding,
        0,
        MAX_PADDING,
        "inpaint_full_res_padding",
        translated.ignored,
    )
    values = {
        "invert_mask": asked.inpainting_mask_invert,
        "mask_blur": within(asked.mask_blur, 0, MAX_BLUR, "mask_blur", translated.ignored),
        "padding_mask_crop": padding if asked.inpaint_full_res else None,
        "masked_content": content,
    }
    files = {
        "image": codec.encode_quickly(picture),
        "mask_image": codec.encode_quickly(hole),
    }
    return Init(Task.INPAINT, values, files)


def _is_blank(mask: Decoded, inverted: bool) -> bool:
    return mask.darkest == 255 if inverted else mask.lightest == 0


def _encodable(image: Decoded, translated: Translated) -> bool:
    model = translated.model.info
    return latents.accessible(model) and latents.encodable(image.width, image.height, model)


def _mode(asked: Img2Img, translated: Translated) -> ResizeMode:
    if asked.resize_mode in tuple(ResizeMode):
        return ResizeMode(asked.resize_mode)
    translated.ignored.add("resize_mode")
    return ResizeMode.STRETCH


def _decode(text: str, purpose: Purpose, *field: str | int) -> Decoded:
    try:
        return sources.decode(str(field[0]), text, purpose)
    except codec.PictureError as error:
        raise invalid([FieldError(pointer=pointer(*field), detail=str(error))]) from None
