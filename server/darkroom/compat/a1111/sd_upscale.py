"""Script “sd upscale”: a picture is enlarged, and drawn again tile by tile.

Arguments and seeds are those of A1111's `scripts/sd_upscale.py`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response

from darkroom.api import submit
from darkroom.api.context import Context
from darkroom.api.errors import ProblemError, invalid, pointer
from darkroom.compat.a1111.answers import Answer, read_image
from darkroom.compat.a1111.child_jobs import ChildJob, Original, enlarge, place
from darkroom.compat.a1111.fields import Img2Img
from darkroom.compat.a1111.images import (
    Upscaler,
    find_upscaler,
    first_init_image,
    upscaler_names,
)
from darkroom.compat.a1111.translate import MAX_IMAGES, Translated
from darkroom.images import codec, resize, tiling
from darkroom.images.tiling import Tiling
from darkroom.requests import OutputFormat, Task
from darkroom.responses import FieldError, Job

DEFAULT_OVERLAP = 64  # pixels
DEFAULT_SCALE = 2.0
MAX_SCALE = 8.0


def start(
    asked: Img2Img, translated: Translated, strength: float, digest: str, answer: Answer
) -> Response:
    """Put the tiles in the queue, a job each with the next seed, and answer with the whole picture.

    Raises:
        ProblemError: 404, 413, 422 or 503.
    """
    here = answer.here
    overlap, scale, upscaler = _arguments(asked.script_args, translated, here)
    if asked.mask is not None:
        translated.ignored.add("mask")
    if translated.count > 1 or len(asked.init_images) > 1:
        translated.ignored.add("n_iter", "init_images")
    init = first_init_image(here, asked)
    size = (round(init.width * scale), round(init.height * scale))
    limit = here.settings.web.max_upload_pixels
    if size[0] * size[1] > limit:
        raise _invalid(3, f"makes {size[0]}×{size[1]}; a picture may have {limit} pixels")
    plan = tiling.plan(size, translated.size, overlap)
    if len(plan.boxes) > MAX_IMAGES:
        raise _invalid(3, f"takes {len(plan.boxes)} tiles; one request may have {MAX_IMAGES}")
    output_format, seed = translated.values["output_format"], asked.seed
    values = {**translated.values, "strength": strength, "num_images": 1}
    values |= {"output_format": OutputFormat.PNG}  # of the tiles, which are encoded once more

    def draw(jobs: Sequence[Job], larger: Sequence[bytes | None]) -> Response:
        (data,) = larger
        if data is None:  # interrupted
            return answer.send(jobs)
        child_jobs = _child_jobs(here, data, plan, upscaler, values)
        return submit.when_ended(
            place(child_jobs, seed, digest, "tiles"),
            lambda ended: _join(ended, plan, output_format, answer),
        )

    original = Original(init.png, (init.width, init.height), size)
    return enlarge(here, [original], upscaler.network, digest, draw)


def _child_jobs(
    here: Context, data: bytes, plan: Tiling, upscaler: Upscaler, values: Mapping[str, Any]
) -> list[ChildJob]:
    """A job for each tile of a picture, once that has its full size."""
    with here.rendering:
        large = resize.enlarge(resize.read(data), plan.size, upscaler.filter)
        tiles = [codec.encode_quickly(tile) for tile in tiling.cut(large, plan)]
    return [
        ChildJob(Task.IMG2IMG, values, {"image": tile}, index, index)
        for index, tile in enumerate(tiles)
    ]


def _join(
    jobs: Sequence[Job], plan: Tiling, output_format: OutputFormat, answer: Answer
) -> Response:
    """Answer with the tiles put together, or with those there are if some are missing."""
    stored = [read_image(answer.here, image) for job in jobs for image in job.images]
    files = [data for data in stored if data is not None]
    if len(files) < len(plan.boxes):  # interrupted, or deleted meanwhile
        return answer.send(jobs)
    with answer.here.rendering:
        picture = tiling.join([resize.read(data).convert("RGB") for data in files], plan)
        data = codec.encode(picture, output_format)
    return answer.send(jobs, [data])


def _arguments(
    given: Sequence[Any], translated: Translated, here: Context
) -> tuple[int, float, Upscaler]:
    """Overlap in pixels, scale, and upscaler from `script_args`: ["", overlap, upscaler, scale].

    The upscaler is a name, or an index in the list of upscalers.
    """
    arguments = [*given, *[None] * 4][:4]
    overlap = _number(arguments[1], DEFAULT_OVERLAP, 1)
    scale = _number(arguments[3], DEFAULT_SCALE, 3)
    if not 1 <= scale <= MAX_SCALE:
        raise _invalid(3, f"must be from 1 to {MAX_SCALE:g}")
    most = min(translated.size) // 2
    if not 0 <= overlap <= most:
        translated.ignored.add("script_args.1")
        overlap = min(max(overlap, 0), most)
    name = arguments[2]
    names = upscaler_names(here.upscalers)
    if isinstance(name, int) and 0 <= name < len(names):
        name = names[name]
    upscaler = find_upscaler(name if isinstance(name, str) else None, here.upscalers)
    if not upscaler.same:
        translated.ignored.add("script_args.2")
    return int(overlap), scale, upscaler


def _number(value: Any, default: float, index: int) -> float:
    """A number in `script_args`, sent as a number or as text."""
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _invalid(index, "must be a number")
    return number


def _invalid(index: int, detail: str) -> ProblemError:
    """The error for a wrong value in `script_args`."""
    return invalid([FieldError(pointer=pointer("script_args", index), detail=detail)])
