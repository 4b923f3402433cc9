"""POST /sdapi/v1/txt2img and /img2img."""

from typing import Any

from flask import Blueprint, Response

from darkroom.api import submit
from darkroom.compat.a1111 import (
    answers,
    bodies,
    child_jobs,
    hires,
    inits,
    scripts,
    sd_upscale,
    translate,
)
from darkroom.compat.a1111.child_jobs import ChildJob
from darkroom.compat.a1111.fields import Img2Img, Settings, Txt2Img
from darkroom.compat.a1111.translate import Translated
from darkroom.requests import Task

blueprint = Blueprint("a1111_generate", __name__, url_prefix="/sdapi/v1")

FIRST_PASS = "pictures"


@blueprint.post("/txt2img")
def txt2img() -> Response:
    """Pictures from words, and with `enable_hr` larger ones from those."""
    submit.check_room()
    body = bodies.read()
    asked = bodies.parse(Txt2Img, body.fields)
    scripts.check(asked.script_name)
    translated = translate.translate(asked)
    second = hires.plan(asked, translated) if asked.enable_hr else None
    parameters = _parameters(asked, translated)
    jobs = child_jobs.place(
        [
            ChildJob(Task.TXT2IMG, {**translated.values, "num_images": count}, first=first)
            for first, count in child_jobs.split(translated.count)
        ],
        asked.seed,
        body,
        FIRST_PASS,
    )
    if second is None:
        return submit.when_ended(
            jobs, lambda ended: answers.send(ended, parameters, translated.ignored)
        )
    return submit.when_ended(
        jobs,
        lambda ended: hires.develop(ended, second, body, parameters, translated.ignored),
    )


@blueprint.post("/img2img")
def img2img() -> Response:
    """Pictures from others and words: all of them, under a mask, or tile by tile."""
    submit.check_room()
    body = bodies.read()
    asked = bodies.parse(Img2Img, body.fields)
    script = scripts.check(asked.script_name, scripts.SD_UPSCALE)
    translated = translate.translate(asked)
    strength = translate.enough(
        asked.denoising_strength,
        translated.values["num_inference_steps"],
        "denoising_strength",
        translated.ignored,
    )
    parameters = _parameters(asked, translated) | {
        "init_images": asked.init_images if asked.include_init_images else None,
        "mask": None,
    }
    if script == scripts.SD_UPSCALE:
        return sd_upscale.develop(asked, translated, strength, body, parameters)
    jobs = child_jobs.place(
        _img2img_child_jobs(asked, translated, strength), asked.seed, body, FIRST_PASS
    )
    ignored = translated.ignored  # and nothing of the pictures, which are large
    return submit.when_ended(jobs, lambda ended: answers.send(ended, parameters, ignored))


def _img2img_child_jobs(asked: Img2Img, translated: Translated, strength: float) -> list[ChildJob]:
    """Jobs from the init images.

    One init image is for all pictures. Several are a batch of their own, which `n_iter` repeats
    (`StableDiffusionProcessingImg2Img.init`).
    """
    found = inits.read(asked, translated)
    values = {**translated.values, "strength": strength}
    if len(found) == 1:
        runs = [(first, count, 0) for first, count in child_jobs.split(translated.count)]
    else:
        times = max(1, min(asked.n_iter, translate.MAX_IMAGES // len(found)))
        runs = [(index, 1, index % len(found)) for index in range(times * len(found))]
    return [
        ChildJob(
            found[source].task,
            {**values, **found[source].values, "num_images": count},
            found[source].files,
            first,
            source,
        )
        for first, count, source in runs
    ]


def _parameters(asked: Settings, translated: Translated) -> dict[str, Any]:
    """The request as it was understood, defaults filled in, without its pictures."""
    width, height = translated.size
    given = asked.model_dump(exclude={"init_images", "mask"})
    return given | {
        "width": width,
        "height": height,
        "seed": -1 if asked.seed is None else asked.seed,
    }
