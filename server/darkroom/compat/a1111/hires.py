"""Hires fix: a second pass over a larger copy of each picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response

from darkroom.api import submit
from darkroom.api.context import context
from darkroom.api.parsing import latents
from darkroom.catalog.models import ModelEntry
from darkroom.compat.a1111 import (
    answers,
    checkpoints,
    child_jobs,
    networks,
    prompts,
    samplers,
    translate,
    upscalers,
)
from darkroom.compat.a1111.bodies import Body
from darkroom.compat.a1111.child_jobs import ChildJob
from darkroom.compat.a1111.fields import Txt2Img
from darkroom.compat.a1111.networks import Small
from darkroom.compat.a1111.translate import Translated
from darkroom.compat.a1111.upscalers import Upscaler
from darkroom.compat.ignored import Ignored
from darkroom.images import codec, resize
from darkroom.requests import Task
from darkroom.responses import Image, Job, JobStatus

SECOND_PASS = "hires"


@dataclass(frozen=True)
class SecondPass:
    """What is done to each picture of the first.

    Attributes:
        values: fields of our own request; width and height are the larger ones.
        upscaler: makes it larger before; None where its latents are enlarged.
    """

    values: Mapping[str, Any]
    upscaler: Upscaler | None


def plan(asked: Txt2Img, translated: Translated) -> SecondPass:
    """What the second pass of a request is.

    Raises:
        ProblemError: 400 or 422.
    """
    ignored = translated.ignored
    model = translated.model
    if asked.hr_checkpoint_name and asked.hr_checkpoint_name.lower() != "use same checkpoint":
        model = checkpoints.find(asked.hr_checkpoint_name, "hr_checkpoint_name")
    latent = upscalers.latent(asked.hr_upscaler) if latents.accessible(model.info) else None
    upscaler = None if latent else upscalers.find(asked.hr_upscaler)
    if upscaler is not None and not upscaler.same:
        ignored.add("hr_upscaler")
    wanted = _size(asked, translated)
    size = translate.fitted(*wanted, model)
    if size != wanted:
        ignored.add("hr_resize_x" if asked.hr_resize_x or asked.hr_resize_y else "hr_scale")
    steps = asked.hr_second_pass_steps or translated.values["num_inference_steps"]
    strength = translate.within(asked.denoising_strength, 0.0, 1.0, "denoising_strength", ignored)
    # There these are the steps to do, here those of which a share is done (`setup_img2img_steps`).
    steps = min(translate.MAX_STEPS, max(1, math.ceil(steps / strength))) if strength else steps
    values = {
        **translated.values,
        "model": model.info.name,
        "width": size[0],
        "height": size[1],
        "num_inference_steps": translate.within(
            steps, 1, translate.MAX_STEPS, "hr_second_pass_steps", ignored
        ),
        "num_images": 1,
        "latent_resize": latent,
    }
    values["strength"] = translate.enough(
        strength, values["num_inference_steps"], "denoising_strength", ignored
    )
    if asked.hr_prompt:
        words = prompts.read(asked.hr_prompt, "hr_prompt", model)
        ignored.add(*words.ignored)
        values |= {"prompt": words.text, "loras": [lora.model_dump() for lora in words.loras]}
    if asked.hr_negative_prompt:
        values["negative_prompt"] = asked.hr_negative_prompt
    values["scheduler"] = _scheduler(asked, translated, model)
    return SecondPass(values, upscaler)


def develop(
    ended: Sequence[Job],
    second: SecondPass,
    body: Body,
    parameters: Mapping[str, Any],
    ignored: Ignored,
) -> Response:
    """Begin the second pass, or answer with the first one's pictures if it was interrupted."""
    if any(job.status is not JobStatus.SUCCEEDED for job in ended):
        return answers.send(ended, parameters, ignored)
    made = {image: data for image in _images(ended) if (data := answers.file_of(image)) is not None}
    if not made:
        return answers.send(ended, parameters, ignored)
    seeds = [image.seed for image in made]

    def draw(files: Sequence[bytes]) -> Response:
        placed = _place(files, seeds, second, body)
        return submit.when_ended(placed, lambda jobs: answers.send(jobs, parameters, ignored))

    network = None if second.upscaler is None else second.upscaler.network
    if network is None:
        return draw(list(made.values()))
    wanted = second.values["width"], second.values["height"]
    small = [Small(f"image:{image.id}", (image.width, image.height), wanted) for image in made]

    def then(_jobs: Sequence[Job], larger: Sequence[bytes | None]) -> Response:
        files = [data for data in larger if data is not None]
        if len(files) < len(larger):  # interrupted
            return answers.send(ended, parameters, ignored)
        return draw(files)

    return networks.enlarge(small, network, body, then)


def _images(jobs: Sequence[Job]) -> list[Image]:
    return [image for job in jobs for image in job.images]


def _place(
    files: Sequence[bytes], seeds: Sequence[int], second: SecondPass, body: Body
) -> tuple[str, ...]:
    """Put the second pass over each picture in the queue; the jobs' ids."""
    size = (second.values["width"], second.values["height"])
    passes: list[ChildJob] = []
    for index, (data, seed) in enumerate(zip(files, seeds, strict=True)):
        with context().rendering:
            picture = resize.read(data).convert("RGB")
            if second.upscaler is not None:
                picture = resize.enlarge(picture, size, second.upscaler.filter)
            png = codec.encode_quickly(picture)
        passes.append(ChildJob(Task.IMG2IMG, second.values, {"image": png}, seed - seeds[0], index))
    return child_jobs.place(passes, seeds[0], body, SECOND_PASS)


def _size(asked: Txt2Img, translated: Translated) -> tuple[int, int]:
    """Width and height in pixels; of a side that is not given, in the picture's proportions."""
    width, height = translated.size
    x, y = asked.hr_resize_x, asked.hr_resize_y
    if x <= 0 and y <= 0:
        return int(width * asked.hr_scale) // 8 * 8, int(height * asked.hr_scale) // 8 * 8
    if x <= 0:
        x = round(width * y / height)
    if y <= 0:
        y = round(height * x / width)
    return x // 8 * 8, y // 8 * 8


def _scheduler(asked: Txt2Img, translated: Translated, model: ModelEntry) -> str:
    """The second pass's own, if it has one, else the first one's."""
    sampler, schedule = asked.hr_sampler_name, asked.hr_scheduler
    same = "use same"
    sampler = None if (sampler or same).lower().startswith(same) else sampler
    schedule = None if (schedule or same).lower().startswith(same) else schedule
    if sampler is None and schedule is None and model.info.name == translated.model.info.name:
        scheduler: str = translated.values["scheduler"]
        return scheduler
    choice = samplers.choose(
        sampler or asked.sampler_name or asked.sampler_index,
        schedule or asked.scheduler,
        model.info,
        "hr_",
    )
    translated.ignored.add(*choice.ignored)
    return choice.scheduler
