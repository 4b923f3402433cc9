"""Hires fix: a second pass over an enlarged copy of each picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response

from darkroom.api import checks, submit
from darkroom.api.context import Context
from darkroom.catalog.models import ModelEntry
from darkroom.compat.a1111 import samplers
from darkroom.compat.a1111.answers import Answer, read_image
from darkroom.compat.a1111.child_jobs import ChildJob, Original, enlarge, place
from darkroom.compat.a1111.fields import Txt2Img, parse_prompt
from darkroom.compat.a1111.images import Upscaler, find_latent_upscaler, find_upscaler
from darkroom.compat.a1111.options import find_model
from darkroom.compat.a1111.translate import (
    MAX_STEPS,
    Translated,
    clamp,
    fit_size,
    usable_strength,
)
from darkroom.images import codec, resize
from darkroom.requests import Task
from darkroom.responses import Job, JobStatus


@dataclass(frozen=True)
class SecondPass:
    """The second pass of a request.

    Attributes:
        values: fields of our own request; width and height are the larger ones.
        upscaler: enlarges pictures before the pass; None if their latents are enlarged in it.
    """

    values: Mapping[str, Any]
    upscaler: Upscaler | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.values["width"], self.values["height"]


def plan(asked: Txt2Img, translated: Translated, here: Context) -> SecondPass:
    """Translate the fields of hires fix.

    Raises:
        ProblemError: 400 or 422.
    """
    ignored = translated.ignored
    model = translated.model
    if asked.hr_checkpoint_name and asked.hr_checkpoint_name.lower() != "use same checkpoint":
        model = find_model(here.catalog, asked.hr_checkpoint_name, "hr_checkpoint_name")
    latent = find_latent_upscaler(asked.hr_upscaler) if checks.has_latents(model.info) else None
    upscaler = None if latent else find_upscaler(asked.hr_upscaler, here.upscalers)
    if upscaler is not None and not upscaler.same:
        ignored.add("hr_upscaler")
    wanted = _size(asked, translated)
    size = fit_size(*wanted, model)
    if size != wanted:
        ignored.add("hr_resize_x" if asked.hr_resize_x or asked.hr_resize_y else "hr_scale")
    strength = clamp(asked.denoising_strength, 0.0, 1.0, "denoising_strength", ignored)
    steps = asked.hr_second_pass_steps or translated.values["num_inference_steps"]
    # A1111 gives the steps to do, our `num_inference_steps` those of which `strength` is the share
    # to do (`setup_img2img_steps`).
    steps = min(MAX_STEPS, max(1, math.ceil(steps / strength))) if strength else steps
    steps = clamp(steps, 1, MAX_STEPS, "hr_second_pass_steps", ignored)
    values = {
        **translated.values,
        "model": model.info.name,
        "width": size[0],
        "height": size[1],
        "num_inference_steps": steps,
        "num_images": 1,
        "latent_resize": latent,
        "strength": usable_strength(strength, steps, "denoising_strength", ignored),
    }
    if asked.hr_prompt:
        prompt = parse_prompt(asked.hr_prompt, "hr_prompt", model, here.adapters)
        ignored.add(*prompt.ignored)
        values |= {"prompt": prompt.text, "loras": [lora.model_dump() for lora in prompt.loras]}
    if asked.hr_negative_prompt:
        values["negative_prompt"] = asked.hr_negative_prompt
    values["scheduler"] = _scheduler(asked, translated, model)
    return SecondPass(values, upscaler)


def start(ended: Sequence[Job], second: SecondPass, digest: str, answer: Answer) -> Response:
    """Put the second pass over the first one's pictures in the queue, and answer when it ends.

    If the first pass was interrupted, its pictures are the answer.
    """
    here = answer.here
    if any(job.status is not JobStatus.SUCCEEDED for job in ended):
        return answer.send(ended)
    made = [(image, read_image(here, image)) for job in ended for image in job.images]
    originals = [
        Original(data, (image.width, image.height), second.size, f"image:{image.id}")
        for image, data in made
        if data is not None
    ]
    if not originals:
        return answer.send(ended)
    seeds = [image.seed for image, data in made if data is not None]

    def draw(_jobs: Sequence[Job], larger: Sequence[bytes | None]) -> Response:
        files = [data for data in larger if data is not None]
        if len(files) < len(larger):  # interrupted
            return answer.send(ended)
        child_jobs = _child_jobs(here, files, seeds, second)
        return submit.when_ended(place(child_jobs, seeds[0], digest, "hires"), answer.send)

    network = None if second.upscaler is None else second.upscaler.network
    return enlarge(here, originals, network, digest, draw)


def _child_jobs(
    here: Context, files: Sequence[bytes], seeds: Sequence[int], second: SecondPass
) -> list[ChildJob]:
    """The second pass over each picture, brought to its size unless its latents are."""
    child_jobs = []
    for index, (data, seed) in enumerate(zip(files, seeds, strict=True)):
        with here.rendering:
            picture = resize.read(data).convert("RGB")
            if second.upscaler is not None:
                picture = resize.enlarge(picture, second.size, second.upscaler.filter)
            png = codec.encode_quickly(picture)
        first = seed - seeds[0]
        child_jobs.append(ChildJob(Task.IMG2IMG, second.values, {"image": png}, first, index))
    return child_jobs


def _size(asked: Txt2Img, translated: Translated) -> tuple[int, int]:
    """Width and height in pixels. A side that is not given keeps the picture's proportions."""
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
    """The second pass's scheduler: its own if it names one, else the first pass's."""
    sampler, schedule = (
        None if not name or name.lower().startswith("use same") else name
        for name in (asked.hr_sampler_name, asked.hr_scheduler)
    )
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
