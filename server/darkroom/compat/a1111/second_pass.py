"""Requests that enlarge pictures and draw them again: hires fix, and the script “sd upscale”."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response

from darkroom.api.context import context
from darkroom.catalog.model_entry import ModelEntry
from darkroom.compat.a1111 import extras, infotext, samplers, translate
from darkroom.compat.a1111.extras import Original, Upscaler
from darkroom.compat.a1111.fields import Img2Img, Txt2Img, translate_prompt, wrong
from darkroom.compat.a1111.jobs import Answer, ChildJob, Size, Then, edits_only, read_image, run
from darkroom.compat.a1111.options import CLIP_SKIP
from darkroom.compat.a1111.translate import MAX_IMAGES, MAX_STEPS, Translated, clamp
from darkroom.images import codec, resize, tiling
from darkroom.images.decoder import Purpose
from darkroom.requests import OutputFormat, Task
from darkroom.responses import Job, JobStatus

SD_UPSCALE = "sd upscale"  # the one script that a request may name
DEFAULT_OVERLAP = 64  # pixels
DEFAULT_SCALE = 2.0
MAX_SCALE = 8.0


# --- hires fix -----------------------------------------------------------------------------


def hires(asked: Txt2Img, translated: Translated, digest: str, answer: Answer) -> Then:
    """The function that draws the first pass's pictures again, larger, and answers with them.

    If the first pass was interrupted, its pictures are the answer.

    Raises:
        ProblemError: 400 or 422, for fields of hires fix.
    """
    values, upscaler = _translate_hires(asked, translated)
    size = values["width"], values["height"]

    def start(ended: Sequence[Job]) -> Response:
        if any(job.status is not JobStatus.SUCCEEDED for job in ended):
            return answer.send(ended)
        originals, seeds = [], []
        for image in (image for job in ended for image in job.images):
            data = read_image(image)
            if data is not None:
                own = image.width, image.height
                originals.append(Original(data, own, size, f"image:{image.id}"))
                seeds.append(image.seed)
        if not originals:
            return answer.send(ended)

        def draw(_jobs: Sequence[Job], larger: Sequence[bytes | None]) -> Response:
            child_jobs = []
            for index, (data, seed) in enumerate(zip(larger, seeds, strict=True)):
                if data is None:  # interrupted
                    return answer.send(ended)
                with context().rendering:
                    picture = resize.read(data).convert("RGB")
                    if min(asked.hr_resize_x, asked.hr_resize_y) > 0:
                        picture = resize.crop(picture, size)
                    if upscaler is not None:
                        picture = resize.enlarge(picture, size, upscaler.filter)
                    files = {"image": codec.encode_quickly(picture)}
                first = seed - seeds[0]
                child_jobs.append(ChildJob(Task.IMG2IMG, values, files, first, index))
            return run(child_jobs, seeds[0], digest, "hires", answer.send)

        network = None if upscaler is None else upscaler.network
        return extras.enlarge(originals, network, digest, draw)

    return start


def _translate_hires(
    asked: Txt2Img, translated: Translated
) -> tuple[Mapping[str, Any], Upscaler | None]:
    """Our fields of the second pass, and what enlarges the pictures before it.

    There is no upscaler if the latents are enlarged, in the pass itself.
    """
    here, ignored, model = context(), translated.ignored, translated.model
    if asked.hr_checkpoint_name and asked.hr_checkpoint_name.lower() != "use same checkpoint":
        named = infotext.named(asked.hr_checkpoint_name)
        model = translate.find_model(here.catalog, named, "hr_checkpoint_name")
    if Task.IMG2IMG not in model.info.tasks and not edits_only(model.info.name):
        raise wrong(f"{model.info.name} does not draw over pictures", "enable_hr")
    latent = "latent_resize" in model.info.fields and extras.find_latent_upscaler(asked.hr_upscaler)
    upscaler = None if latent else extras.find_upscaler(asked.hr_upscaler, "hr_upscaler", ignored)
    wanted = _hires_size(asked, translated.size)
    width, height = translate.fit_size(*wanted, model)
    if (width, height) != wanted:
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
        "width": width,
        "height": height,
        "num_inference_steps": steps,
        "latent_resize": latent or None,
        "strength": translate.usable_strength(
            strength, steps, model, "denoising_strength", ignored
        ),
    }
    if "denoising_strength" in asked.model_fields_set and edits_only(model.info.name):
        ignored.add("denoising_strength")
    if asked.hr_prompt:
        values |= translate_prompt(asked.hr_prompt, "hr_prompt", model, here.adapters, ignored)
    elif model is not translated.model:  # to which other LoRAs may fit
        values |= translate_prompt(asked.prompt, "prompt", model, here.adapters, ignored)
    if "clip_skip" in values:
        layers = model.info.limits.max_clip_skip
        values["clip_skip"] = clamp(values["clip_skip"], 0, layers, CLIP_SKIP, ignored)
    if asked.hr_negative_prompt:
        values["negative_prompt"] = asked.hr_negative_prompt
    values["scheduler"] = _hires_scheduler(asked, translated, model)
    return translate.honoured(Task.IMG2IMG, values, model, ignored), upscaler


def _hires_size(asked: Txt2Img, size: Size) -> Size:
    """Width and height in pixels. A side that is not given keeps the picture's proportions."""
    width, height = size
    x, y = asked.hr_resize_x, asked.hr_resize_y
    if x <= 0 and y <= 0:
        return int(width * asked.hr_scale) // 8 * 8, int(height * asked.hr_scale) // 8 * 8
    if x <= 0:
        x = round(width * y / height)
    if y <= 0:
        y = round(height * x / width)
    return x // 8 * 8, y // 8 * 8


def _hires_scheduler(asked: Txt2Img, translated: Translated, model: ModelEntry) -> str:
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


# --- sd upscale ----------------------------------------------------------------------------


def sd_upscale(asked: Img2Img, translated: Translated, digest: str, answer: Answer) -> Response:
    """Put the tiles in the queue, a job each with the next seed, and answer with the whole picture.

    Arguments and seeds are those of A1111's `scripts/sd_upscale.py`.

    Raises:
        ProblemError: 413, 422 or 503.
    """
    overlap, scale, upscaler = _arguments(asked.script_args, translated)
    if asked.mask is not None:
        translated.ignored.add("mask")
    if translated.count > 1 or len(asked.init_images) > 1:
        translated.ignored.add("n_iter", "init_images")
    init = extras.decode(asked.init_images[0], Purpose.IMAGE, "init_images", 0)
    size = (round(init.width * scale), round(init.height * scale))
    limit = context().settings.web.max_upload_pixels
    if size[0] * size[1] > limit:
        detail = f"makes {size[0]}×{size[1]}; a picture may have {limit} pixels"
        raise wrong(detail, "script_args", 3)
    try:
        codec.check_sides(size, translated.values["output_format"])
    except codec.PictureError as error:
        raise wrong(str(error), "script_args", 3) from None
    plan = tiling.plan(size, translated.size, overlap)
    if len(plan.boxes) > MAX_IMAGES:
        detail = f"takes {len(plan.boxes)} tiles; one request may have {MAX_IMAGES}"
        raise wrong(detail, "script_args", 3)
    own = (init.width, init.height)
    upscaler = extras.fitting(upscaler, [own], "script_args.2", translated.ignored)
    seed, output_format = asked.seed, translated.values["output_format"]
    values = {**translated.values, "output_format": OutputFormat.PNG}  # of the tiles

    def draw(jobs: Sequence[Job], larger: Sequence[bytes | None]) -> Response:
        (data,) = larger
        if data is None:  # interrupted
            return answer.send(jobs)
        with context().rendering:
            large = resize.enlarge(resize.read(data), size, upscaler.filter)
            tiles = [codec.encode_quickly(tile) for tile in tiling.cut(large, plan)]
        child_jobs = [
            ChildJob(Task.IMG2IMG, values, {"image": tile}, index, index)
            for index, tile in enumerate(tiles)
        ]
        return run(child_jobs, seed, digest, "tiles", join)

    def join(jobs: Sequence[Job]) -> Response:
        stored = [read_image(image) for job in jobs for image in job.images]
        files = [data for data in stored if data is not None]
        if len(files) < len(plan.boxes):  # interrupted, or deleted meanwhile
            return answer.send(jobs)
        with context().rendering:
            picture = tiling.join([resize.read(data).convert("RGB") for data in files], plan)
            data = codec.encode(picture, output_format)
        return answer.send(jobs, [data])

    original = Original(init.png, own, size)
    return extras.enlarge([original], upscaler.network, digest, draw)


def _arguments(given: Sequence[Any], translated: Translated) -> tuple[int, float, Upscaler]:
    """Overlap in pixels, scale, and upscaler from `script_args`: ["", overlap, upscaler, scale].

    The upscaler is a name, or an index in the list of upscalers.
    """
    arguments = [*given, *[None] * 4][:4]
    overlap = _number(arguments[1], DEFAULT_OVERLAP, 1)
    scale = _number(arguments[3], DEFAULT_SCALE, 3)
    if not 1 <= scale <= MAX_SCALE:
        raise wrong(f"must be from 1 to {MAX_SCALE:g}", "script_args", 3)
    overlap = clamp(overlap, 0, min(translated.size) // 2, "script_args.1", translated.ignored)
    name = arguments[2]
    names = extras.upscaler_names()
    if isinstance(name, int) and 0 <= name < len(names):
        name = names[name]
    name = name if isinstance(name, str) else None
    return int(overlap), scale, extras.find_upscaler(name, "script_args.2", translated.ignored)


def _number(value: Any, default: float, index: int) -> float:
    """A number in `script_args`, sent as a number or as text."""
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise wrong("must be a number", "script_args", index)
    return number
