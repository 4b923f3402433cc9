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
from darkroom.compat.a1111.child_jobs import Order
from darkroom.compat.a1111.fields import Img2Img, Settings, Txt2Img
from darkroom.compat.a1111.translate import Settled
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
    settled = translate.settle(asked)
    second = hires.plan(asked, settled) if asked.enable_hr else None
    parameters = _parameters(asked, settled)
    jobs = child_jobs.place(
        [
            Order(Task.TXT2IMG, {**settled.values, "num_images": count}, first=first)
            for first, count in child_jobs.split(settled.count)
        ],
        asked.seed,
        body,
        FIRST_PASS,
    )
    if second is None:
        return submit.when_ended(
            jobs, lambda ended: answers.send(ended, parameters, settled.ignored)
        )
    return submit.when_ended(
        jobs,
        lambda ended: hires.develop(ended, second, body, parameters, settled.ignored),
    )


@blueprint.post("/img2img")
def img2img() -> Response:
    """Pictures from others and words: all of them, under a mask, or tile by tile."""
    submit.check_room()
    body = bodies.read()
    asked = bodies.parse(Img2Img, body.fields)
    script = scripts.check(asked.script_name, scripts.SD_UPSCALE)
    settled = translate.settle(asked)
    strength = translate.enough(
        asked.denoising_strength,
        settled.values["num_inference_steps"],
        "denoising_strength",
        settled.ignored,
    )
    parameters = _parameters(asked, settled) | {
        "init_images": asked.init_images if asked.include_init_images else None,
        "mask": None,
    }
    if script == scripts.SD_UPSCALE:
        return sd_upscale.develop(asked, settled, strength, body, parameters)
    jobs = child_jobs.place(_img2img_orders(asked, settled, strength), asked.seed, body, FIRST_PASS)
    ignored = settled.ignored  # and nothing of the pictures, which are large
    return submit.when_ended(jobs, lambda ended: answers.send(ended, parameters, ignored))


def _img2img_orders(asked: Img2Img, settled: Settled, strength: float) -> list[Order]:
    """Jobs from the init images.

    One init image is for all pictures. Several are a batch of their own, which `n_iter` repeats
    (`StableDiffusionProcessingImg2Img.init`).
    """
    found = inits.read(asked, settled)
    values = {**settled.values, "strength": strength}
    if len(found) == 1:
        runs = [(first, count, 0) for first, count in child_jobs.split(settled.count)]
    else:
        times = max(1, min(asked.n_iter, translate.MAX_IMAGES // len(found)))
        runs = [(index, 1, index % len(found)) for index in range(times * len(found))]
    return [
        Order(
            found[source].task,
            {**values, **found[source].values, "num_images": count},
            found[source].files,
            first,
            source,
        )
        for first, count, source in runs
    ]


def _parameters(asked: Settings, settled: Settled) -> dict[str, Any]:
    """The request as it was understood, defaults filled in, without its pictures."""
    width, height = settled.size
    given = asked.model_dump(exclude={"init_images", "mask"})
    return given | {
        "width": width,
        "height": height,
        "seed": -1 if asked.seed is None else asked.seed,
    }
