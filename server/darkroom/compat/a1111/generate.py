"""POST /sdapi/v1/txt2img and /img2img."""

from dataclasses import replace
from typing import Any

from flask import Blueprint, Response
from PIL import ImageOps

from darkroom.api import checks
from darkroom.api.context import context
from darkroom.api.errors import ProblemError
from darkroom.api.routes import submit
from darkroom.compat.a1111 import second_pass
from darkroom.compat.a1111.extras import decode
from darkroom.compat.a1111.fields import REPEATED, Img2Img, Settings, Txt2Img, read
from darkroom.compat.a1111.jobs import Answer, ChildJob, Then, edits_only, run, split
from darkroom.compat.a1111.status import client_options
from darkroom.compat.a1111.translate import (
    MAX_IMAGES,
    Translated,
    clamp,
    honoured,
    translate,
    usable_strength,
)
from darkroom.images import codec, resize
from darkroom.images.decoder import Decoded, Purpose
from darkroom.images.resize import ResizeMode
from darkroom.requests import LatentResize, MaskedContent, Task

blueprint = Blueprint("a1111_generate", __name__, url_prefix="/sdapi/v1")

FIRST_PASS = "pictures"
MAX_BLUR = 256  # pixels, as is the padding
MAX_PADDING = 4096
FILL_FROM_AROUND, FILL_ORIGINAL = 0, 1  # values of `inpainting_fill`
FILLS = {2: MaskedContent.NOISE, 3: MaskedContent.NOTHING}
RESIZE_LATENTS = 3  # a value of `resize_mode`


@blueprint.post("/txt2img")
def txt2img() -> Response:
    """Generate pictures from a prompt; with `enable_hr`, larger ones from those."""
    here = context()
    submit.check_room()
    asked, digest, misread = read(Txt2Img)
    _find_script(asked.script_name)
    translated = translate(asked, here.catalog, here.adapters, client_options(), misread)
    answer = Answer(_parameters(asked, translated), translated.ignored)
    then: Then = answer.send
    if asked.enable_hr:
        then = second_pass.hires(asked, translated, digest, answer)
    child_jobs = split(ChildJob(Task.TXT2IMG, translated.values), translated.count)
    return run(child_jobs, asked.seed, digest, FIRST_PASS, then)


@blueprint.post("/img2img")
def img2img() -> Response:
    """Generate pictures from others and a prompt: whole, under a mask, or tile by tile."""
    here = context()
    submit.check_room()
    asked, digest, misread = read(Img2Img)
    script = _find_script(asked.script_name, second_pass.SD_UPSCALE)
    translated = translate(asked, here.catalog, here.adapters, client_options(), misread)
    steps, ignored = translated.values["num_inference_steps"], translated.ignored
    model, field = translated.model, "denoising_strength"
    strength = usable_strength(asked.denoising_strength, steps, model, field, ignored)
    values = {**translated.values, "strength": strength}
    translated = replace(translated, values=honoured(Task.IMG2IMG, values, model, ignored))
    if field in asked.model_fields_set and edits_only(model.info.name):
        ignored.add(field)
    used = asked.init_images if script is None else asked.init_images[:1]
    if not used or not all(used):
        raise ProblemError(404, "init-image", "Init image not found", "init_images has none")
    parameters = _parameters(asked, translated) | {
        "init_images": asked.init_images if asked.include_init_images else None,
        "mask": None,
    }
    # What waits for the jobs holds the answer, and not the request, whose pictures are large.
    answer = Answer(parameters, ignored)
    if script is not None:
        return second_pass.sd_upscale(asked, translated, digest, answer)
    child_jobs = _img2img_jobs(asked, translated)
    if len(child_jobs) == 1:
        child_jobs = split(child_jobs[0], translated.count)
    else:  # a batch, which is repeated `n_iter` times (`StableDiffusionProcessingImg2Img.init`)
        child_jobs *= max(1, min(asked.n_iter, MAX_IMAGES // len(child_jobs)))
        child_jobs = [replace(job, first=index) for index, job in enumerate(child_jobs)]
    return run(child_jobs, asked.seed, digest, FIRST_PASS, answer.send)


def _find_script(name: str | None, *known: str) -> str | None:
    """The script that a request names, in lower case; None if it names none."""
    wanted = (name or "").strip().lower()
    if wanted in ("", "none"):
        return None
    if wanted not in known:
        raise ProblemError(422, "script", "Script not found", f"there is no script {name!r}")
    return wanted


def _parameters(asked: Settings, translated: Translated) -> dict[str, Any]:
    """The request with defaults filled in, without pictures and fields that are not A1111's.

    Those would be kept with the answer, and some clients put a password into one.
    """
    width, height = translated.size
    foreign = (asked.model_extra or {}).keys() - REPEATED
    given = asked.model_dump(exclude={"init_images", "mask", *foreign})
    seed = -1 if asked.seed is None else asked.seed
    return given | {"width": width, "height": height, "seed": seed}


def _img2img_jobs(asked: Img2Img, translated: Translated) -> list[ChildJob]:
    """A job from each init image, made to fit the request's size, as is the mask.

    The task is inpaint if there is a mask that marks anything, else img2img.

    Raises:
        ProblemError: 413, 422 or 503.
    """
    model, ignored = translated.model.info, translated.ignored
    mask = None if asked.mask is None else decode(asked.mask, Purpose.MASK, "mask")
    if mask is not None and checks.covers_nothing(mask, asked.inpainting_mask_invert):
        ignored.add("mask")  # as in A1111, this means img2img
        mask = None
    latent = (
        asked.resize_mode == RESIZE_LATENTS and mask is None and "latent_resize" in model.fields
    )
    child_jobs = []
    for index, text in enumerate(asked.init_images):
        image = decode(text, Purpose.IMAGE, "init_images", index)
        if latent and checks.encodable(image.width, image.height, model):
            values = {**translated.values, "latent_resize": LatentResize.BILINEAR}
            job = ChildJob(Task.IMG2IMG, values, {"image": image.png})
        else:
            job = _fitted(image, mask, asked, translated)
        child_jobs.append(replace(job, source=index))
    return child_jobs


def _fitted(
    image: Decoded, mask: Decoded | None, asked: Img2Img, translated: Translated
) -> ChildJob:
    """A job from an init image and a mask, resized as asked for."""
    mode = ResizeMode.STRETCH  # which is left to the job
    if asked.resize_mode in tuple(ResizeMode):
        mode = ResizeMode(asked.resize_mode)
    else:
        translated.ignored.add("resize_mode")
    with context().rendering:
        if mask is not None:
            return _inpaint(image, mask, mode, asked, translated)
        png = image.png
        if mode is not ResizeMode.STRETCH and (image.width, image.height) != translated.size:
            png = codec.encode_quickly(resize.resize(resize.read(png), translated.size, mode))
    return ChildJob(Task.IMG2IMG, translated.values, {"image": png})


def _inpaint(
    image: Decoded, mask: Decoded, mode: ResizeMode, asked: Img2Img, translated: Translated
) -> ChildJob:
    """A job from an init image and the mask in its size, the masked area filled as asked for."""
    ignored = translated.ignored
    picture, hole = resize.read(image.png), resize.read(mask.png)
    if hole.size != picture.size:
        hole = resize.resize(hole, picture.size, ResizeMode.STRETCH)
    if not asked.inpaint_full_res and mode is not ResizeMode.STRETCH:
        picture = resize.resize(picture, translated.size, mode)
        hole = resize.resize(hole, translated.size, mode)
    content = MaskedContent.ORIGINAL
    if asked.inpainting_fill == FILL_FROM_AROUND:
        marked = ImageOps.invert(hole) if asked.inpainting_mask_invert else hole
        picture = resize.fill_from_around(picture, marked)
    elif asked.inpainting_fill in FILLS:
        content = FILLS[asked.inpainting_fill]
    elif asked.inpainting_fill != FILL_ORIGINAL:
        ignored.add("inpainting_fill")
    name = "inpaint_full_res_padding"
    padding = clamp(asked.inpaint_full_res_padding, 0, MAX_PADDING, name, ignored)
    values = {
        **translated.values,
        "invert_mask": asked.inpainting_mask_invert,
        "mask_blur": clamp(asked.mask_blur, 0, MAX_BLUR, "mask_blur", ignored),
        "padding_mask_crop": padding if asked.inpaint_full_res else None,
        "masked_content": content,
    }
    values = honoured(Task.INPAINT, values, translated.model, ignored)
    files = {"image": codec.encode_quickly(picture), "mask_image": codec.encode_quickly(hole)}
    return ChildJob(Task.INPAINT, values, files)
