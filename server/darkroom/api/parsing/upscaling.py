"""From a request to make a picture larger to one with nothing left open."""

from darkroom.api.context import context
from darkroom.api.errors import invalid
from darkroom.api.sources import Source
from darkroom.catalog.upscalers import UnknownUpscalerError
from darkroom.images import tiling
from darkroom.requests import OutputFormat, Upscale, UpscaleRequest, Workload
from darkroom.responses import FieldError, UpscalerInfo

MAX_PIXELS = 16_777_216  # of what a network makes: 4096², whose PNG takes the worker two seconds


def find(asked: UpscaleRequest) -> UpscalerInfo:
    """The upscaler asked for.

    Raises:
        ProblemError: 422.
    """
    try:
        found = context().upscalers.find(asked.upscaler).info
    except UnknownUpscalerError as error:
        raise invalid([FieldError(pointer="#/upscaler", detail=str(error))]) from None
    if asked.scale is not None and asked.scale > found.scale:
        detail = f"{found.name} makes pictures up to {found.scale} times larger; ask twice for more"
        raise invalid([FieldError(pointer="#/scale", detail=detail)])
    return found


def resolve(
    asked: UpscaleRequest, upscaler: UpscalerInfo, source: Source, output_format: OutputFormat
) -> tuple[Upscale, Workload]:
    """Fill in what the caller left out.

    Raises:
        ProblemError: 422, the picture is too large.
    """
    width, height = source.size
    limit = MAX_PIXELS // upscaler.scale**2
    if width * height > limit:
        detail = f"is {width}×{height}; {upscaler.name} takes pictures of up to {limit} pixels"
        raise invalid([FieldError(pointer="#/image", detail=detail)])
    request = Upscale(
        image=source.reference,
        upscaler=upscaler.name,
        scale=float(upscaler.scale) if asked.scale is None else asked.scale,
        output_format=output_format,
    )
    wide, high = request.size(source.size)
    tiles = len(tiling.for_upscaling(source.size).boxes)
    return request, Workload(request.model, wide * high, 1, tiles)
