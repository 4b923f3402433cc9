"""Script “sd upscale”: a picture is enlarged, and drawn again tile by tile.

Arguments and seeds are those of `scripts/sd_upscale.py`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response

from darkroom.api import submit
from darkroom.api.context import context
from darkroom.api.errors import invalid, pointer
from darkroom.compat.a1111 import answers, child_jobs, inits, networks, upscalers
from darkroom.compat.a1111.bodies import Body
from darkroom.compat.a1111.child_jobs import ChildJob
from darkroom.compat.a1111.fields import Img2Img
from darkroom.compat.a1111.networks import Small
from darkroom.compat.a1111.translate import MAX_IMAGES, Translated
from darkroom.compat.ignored import Ignored
from darkroom.images import codec, resize, tiling
from darkroom.images.tiling import Tiling
from darkroom.requests import OutputFormat, Task
from darkroom.responses import FieldError, Job

TILES = "tiles"
OVERLAP = 64  # pixels
SCALE = 2.0
MAX_SCALE = 8.0


def develop(
    asked: Img2Img,
    translated: Translated,
    strength: float,
    body: Body,
    parameters: Mapping[str, Any],
) -> Response:
    """Draw the tiles, each as a job from the seed after the one before; then put them together.

    Raises:
        ProblemError: 404, 413, 422 or 503.
    """
    overlap, scale, upscaler = _arguments(asked.script_args, translated)
    if asked.mask is not None:
        translated.ignored.add("mask")
    if translated.count > 1 or len(asked.init_images) > 1:
        translated.ignored.add("n_iter", "init_images")
    init = inits.decode_first(asked)
    size = (round(init.width * scale), round(init.height * scale))
    limit = context().settings.web.max_upload_pixels
    if size[0] * size[1] > limit:
        raise _wrong(3, f"makes {size[0]}×{size[1]}; a picture may have {limit} pixels")
    plan = tiling.plan(size, translated.size, overlap)
    if len(plan.boxes) > MAX_IMAGES:
        raise _wrong(3, f"takes {len(plan.boxes)} tiles; one request may have {MAX_IMAGES}")
    output_format = translated.values["output_format"]
    values = {**translated.values, "strength": strength, "num_images": 1}
    values |= {"output_format": OutputFormat.PNG}  # of the tiles: nothing is lost before the end
    ignored = translated.ignored

    def draw(png: bytes) -> Response:
        placed = _place(png, plan, upscaler.filter, values, asked.seed, body)
        return submit.when_ended(
            placed, lambda jobs: _put_together(jobs, plan, output_format, parameters, ignored)
        )

    if upscaler.network is None:
        return draw(init.png)

    def then(jobs: Sequence[Job], larger: Sequence[bytes | None]) -> Response:
        (data,) = larger
        return answers.send(jobs, parameters, ignored) if data is None else draw(data)

    small = Small(init.png, (init.width, init.height), size)
    return networks.enlarge([small], upscaler.network, body, then)


def _place(
    png: bytes,
    plan: Tiling,
    between: resize.Filter,
    values: Mapping[str, Any],
    seed: int | None,
    body: Body,
) -> tuple[str, ...]:
    """Cut a picture up, once it has its size, and put the tiles in the queue; the jobs' ids."""
    with context().rendering:
        large = resize.enlarge(resize.read(png), plan.size, between)
        tiles = [codec.encode_quickly(tile) for tile in tiling.cut(large, plan)]
    return child_jobs.place(
        [
            ChildJob(Task.IMG2IMG, values, {"image": tile}, index, index)
            for index, tile in enumerate(tiles)
        ],
        seed,
        body,
        TILES,
    )


def _put_together(
    jobs: Sequence[Job],
    plan: Tiling,
    output_format: OutputFormat,
    parameters: Mapping[str, Any],
    ignored: Ignored,
) -> Response:
    made = [image for job in jobs for image in job.images]
    files = [data for image in made if (data := answers.file_of(image)) is not None]
    if len(files) < len(plan.boxes):  # interrupted, or deleted in between
        return answers.send(jobs, parameters, ignored)
    with context().rendering:
        whole = tiling.join([resize.read(data).convert("RGB") for data in files], plan)
        data = codec.encode(whole, output_format)
    return answers.send(jobs, parameters, ignored, [data])


def _arguments(
    given: Sequence[Any], translated: Translated
) -> tuple[int, float, upscalers.Upscaler]:
    """Overlap in pixels, scale, and upscaler by name or place in the list: `script_args`."""
    arguments = [*given, *[None] * 4][:4]
    overlap = _number(arguments[1], OVERLAP, 1)
    scale = _number(arguments[3], SCALE, 3)
    if not 1 <= scale <= MAX_SCALE:
        raise _wrong(3, f"must be from 1 to {MAX_SCALE:g}")
    if not 0 <= overlap <= min(translated.size) // 2:
        translated.ignored.add("script_args.1")
        overlap = min(max(overlap, 0), min(translated.size) // 2)
    name = arguments[2]
    known = upscalers.names()
    if isinstance(name, int) and 0 <= name < len(known):
        name = known[name]
    upscaler = upscalers.find(name if isinstance(name, str) else None)
    if not upscaler.same:
        translated.ignored.add("script_args.2")
    return int(overlap), scale, upscaler


def _number(value: Any, default: float, place: int) -> float:
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _wrong(place, "must be a number")
    return number


def _wrong(place: int, detail: str) -> Exception:
    return invalid([FieldError(pointer=pointer("script_args", place), detail=detail)])
