"""POST /sdapi/v1/txt2img and /img2img."""

from typing import Any

from flask import Blueprint, Response

from darkroom.api import submit
from darkroom.api.context import context
from darkroom.compat.a1111 import child_jobs, hires, images, sd_upscale
from darkroom.compat.a1111.answers import Answer
from darkroom.compat.a1111.child_jobs import ChildJob
from darkroom.compat.a1111.fields import Img2Img, Settings, Txt2Img, read
from darkroom.compat.a1111.images import InitImage
from darkroom.compat.a1111.options import client_options
from darkroom.compat.a1111.translate import (
    MAX_IMAGES,
    SD_UPSCALE,
    Translated,
    check_script,
    translate,
    usable_strength,
)
from darkroom.requests import Task

blueprint = Blueprint("a1111_generate", __name__, url_prefix="/sdapi/v1")

FIRST_PASS = "pictures"


@blueprint.post("/txt2img")
def txt2img() -> Response:
    """Generate pictures from a prompt; with `enable_hr`, larger ones from those."""
    here = context()
    submit.check_room()
    asked, digest = read(here, Txt2Img)
    check_script(asked.script_name)
    translated = translate(asked, here.catalog, here.adapters, client_options(here))
    second = hires.plan(asked, translated, here) if asked.enable_hr else None
    answer = Answer(here, _parameters(asked, translated), translated.ignored)
    jobs = child_jobs.place(
        [
            ChildJob(Task.TXT2IMG, {**translated.values, "num_images": count}, first=first)
            for first, count in child_jobs.split(translated.count)
        ],
        asked.seed,
        digest,
        FIRST_PASS,
    )
    if second is None:
        return submit.when_ended(jobs, answer.send)
    return submit.when_ended(jobs, lambda ended: hires.start(ended, second, digest, answer))


@blueprint.post("/img2img")
def img2img() -> Response:
    """Generate pictures from others and a prompt: whole, under a mask, or tile by tile."""
    here = context()
    submit.check_room()
    asked, digest = read(here, Img2Img)
    script = check_script(asked.script_name, SD_UPSCALE)
    translated = translate(asked, here.catalog, here.adapters, client_options(here))
    strength = usable_strength(
        asked.denoising_strength,
        translated.values["num_inference_steps"],
        "denoising_strength",
        translated.ignored,
    )
    parameters = _parameters(asked, translated) | {
        "init_images": asked.init_images if asked.include_init_images else None,
        "mask": None,
    }
    # What waits for the jobs holds the answer, and not the request, whose pictures are large.
    answer = Answer(here, parameters, translated.ignored)
    if script == SD_UPSCALE:
        return sd_upscale.start(asked, translated, strength, digest, answer)
    init_images = images.read_init_images(here, asked, translated)
    jobs = child_jobs.place(
        _img2img_jobs(init_images, translated, asked.n_iter, strength),
        asked.seed,
        digest,
        FIRST_PASS,
    )
    return submit.when_ended(jobs, answer.send)


def _img2img_jobs(
    init_images: list[InitImage], translated: Translated, n_iter: int, strength: float
) -> list[ChildJob]:
    """Jobs from init images.

    One init image is used for all pictures. Several are a batch, which is repeated `n_iter` times
    (`StableDiffusionProcessingImg2Img.init`).
    """
    if len(init_images) == 1:
        runs = [(first, count, 0) for first, count in child_jobs.split(translated.count)]
    else:
        times = max(1, min(n_iter, MAX_IMAGES // len(init_images)))
        runs = [(index, 1, index % len(init_images)) for index in range(times * len(init_images))]
    values = {**translated.values, "strength": strength}
    return [
        ChildJob(
            init_images[source].task,
            {**values, **init_images[source].values, "num_images": count},
            init_images[source].files,
            first,
            source,
        )
        for first, count, source in runs
    ]


def _parameters(asked: Settings, translated: Translated) -> dict[str, Any]:
    """The request with defaults filled in, without its pictures."""
    width, height = translated.size
    given = asked.model_dump(exclude={"init_images", "mask"})
    return given | {
        "width": width,
        "height": height,
        "seed": -1 if asked.seed is None else asked.seed,
    }
