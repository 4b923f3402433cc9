"""Upscalers, and POST /sdapi/v1/extra-single-image and /extra-batch-images."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify
from markupsafe import escape
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from darkroom.api.context import context
from darkroom.api.routes import submit
from darkroom.compat.a1111 import jobs
from darkroom.compat.a1111.fields import Name, RoundedInt, read, wrong
from darkroom.compat.a1111.jobs import ChildJob, Size
from darkroom.compat.ignored import Ignored
from darkroom.images import codec, resize
from darkroom.images.decoder import Decoded, Purpose
from darkroom.images.resize import Filter, ResizeMode
from darkroom.requests import LatentResize, OutputFormat, Task
from darkroom.responses import Job, UpscalerInfo

blueprint = Blueprint("a1111_extras", __name__, url_prefix="/sdapi/v1")

MAX_PIXELS = 16_777_216  # of an answer: 4096², whose PNG is made while the caller waits
MAX_PICTURES = 16
BY_SIZE = 1  # a value of `resize_mode`

NO_UPSCALER = "None"
LANCZOS = "Lanczos"
NEAREST = "Nearest"
FILTERS = (NO_UPSCALER, LANCZOS, NEAREST)
LATENT_UPSCALERS = {
    "Latent": LatentResize.BILINEAR,
    "Latent (antialiased)": LatentResize.BILINEAR_ANTIALIASED,
    "Latent (bicubic)": LatentResize.BICUBIC,
    "Latent (bicubic antialiased)": LatentResize.BICUBIC_ANTIALIASED,
    "Latent (nearest)": LatentResize.NEAREST,
    "Latent (nearest-exact)": LatentResize.NEAREST_EXACT,
}
# A1111's names of the files it downloads (`modules/realesrgan_model.py`), in lower case.
FILES = {
    "r-esrgan 4x+": "realesrgan_x4plus",
    "r-esrgan 4x+ anime6b": "realesrgan_x4plus_anime_6b",
    "r-esrgan 2x+": "realesrgan_x2plus",
}


# --- upscalers -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Upscaler:
    """A network, if there is one, and the interpolation between pixels for the rest of the way."""

    filter: Filter
    network: UpscalerInfo | None = None


def upscaler_names() -> list[str]:
    """All upscalers but those of latents: filters, then networks."""
    return [*FILTERS, *(entry.info.name for entry in context().upscalers.entries())]


def find_upscaler(name: str | None, field: str, ignored: Ignored) -> Upscaler:
    """The upscaler of a name. One that is not installed is replaced, and the field ignored."""
    wanted = (name or LANCZOS).strip().lower()
    if wanted in (NO_UPSCALER.lower(), LANCZOS.lower()):
        return Upscaler(Filter.LANCZOS)
    if wanted == NEAREST.lower():
        return Upscaler(Filter.NEAREST)
    for entry in context().upscalers.entries():
        if entry.info.name.lower() in (wanted, FILES.get(wanted)):
            return Upscaler(Filter.LANCZOS, entry.info)
    ignored.add(field)
    return Upscaler(Filter.NEAREST if "nearest" in wanted else Filter.LANCZOS)


def fitting(upscaler: Upscaler, sizes: Iterable[Size], field: str, ignored: Ignored) -> Upscaler:
    """The same, without the network if a picture is too large for it; the field is then ignored."""
    network = upscaler.network
    if network is None or all(w * h <= network.max_pixels for w, h in sizes):
        return upscaler
    ignored.add(field)
    return Upscaler(upscaler.filter)


def find_latent_upscaler(name: str | None) -> LatentResize | None:
    """How latents are enlarged; the default without a name, None for another upscaler's name."""
    if not name:
        return LatentResize.BILINEAR
    known = {label.lower(): mode for label, mode in LATENT_UPSCALERS.items()}
    return known.get(name.lower())


def decode(text: str, purpose: Purpose, *field: str | int) -> Decoded:
    """Decode a picture in base64, of the field at this path.

    Raises:
        ProblemError: 413, 422 or 503.
    """
    try:
        return context().sources.decode(str(field[0]), text, purpose)
    except codec.PictureError as error:
        raise wrong(str(error), *field) from None


@dataclass(frozen=True)
class Original:
    """A picture to enlarge: its file, or `image:<id>` of a stored one."""

    data: bytes
    size: Size
    wanted: Size
    reference: str | None = None


def enlarge(
    originals: Sequence[Original],
    network: UpscalerInfo | None,
    digest: str,
    then: Callable[[Sequence[Job], Sequence[bytes | None]], Response],
) -> Response:
    """Answer the current request once a network has enlarged all pictures, a job each.

    The network gets as close to the wanted sizes as its own scale allows. Without one there are no
    jobs, and `then` is given the pictures as they are.

    Args:
        originals: the pictures.
        network: the network, or None.
        digest: of the request.
        then: answers, or waits for more; see `run`. Takes the jobs and their files, PNGs, None for
            an interrupted job.

    Raises:
        ProblemError: 422 or 429.
    """
    if network is None:
        return then((), [original.data for original in originals])
    child_jobs = []
    for index, original in enumerate(originals):
        sides = zip(original.wanted, original.size, strict=True)
        scale = max(want / have for want, have in sides)
        values: dict[str, Any] = {
            "upscaler": network.name,
            "scale": min(float(network.scale), max(1.0, scale)),
            "output_format": OutputFormat.PNG,
        }
        files = {"image": original.data}
        if original.reference is not None:
            values, files = {**values, "image": original.reference}, {}
        child_jobs.append(ChildJob(Task.UPSCALE, values, files, index, index))

    def ended(made: Sequence[Job]) -> Response:
        return then(made, [jobs.read_image(job.images[0]) if job.images else None for job in made])

    return jobs.run(child_jobs, None, digest, "larger", ended)


# --- enlarging -----------------------------------------------------------------------------


def _data(value: Any) -> Any:
    """The picture of a {data, name} object, which is how a batch sends them."""
    return value.get("data") if isinstance(value, dict) else value


class Extras(BaseModel):
    """The fields of both routes that enlarge. Unknown fields are kept, to be named as ignored."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    resize_mode: RoundedInt = 0
    upscaling_resize: float = Field(2.0, ge=0.05, le=16)
    upscaling_resize_w: RoundedInt = Field(512, ge=1, le=codec.MAX_SIDE)
    upscaling_resize_h: RoundedInt = Field(512, ge=1, le=codec.MAX_SIDE)
    upscaling_crop: bool = True
    upscaler_1: Name = None
    upscaler_2: Name = None
    extras_upscaler_2_visibility: float = 0.0
    show_extras_results: Any = None
    upscale_first: Any = None


class Single(Extras):
    """The fields of `/extra-single-image`."""

    image: str = Field(min_length=1)


class Batch(Extras):
    """The fields of `/extra-batch-images`."""

    image_list: list[Annotated[str, BeforeValidator(_data)]] = Field(
        alias="imageList", min_length=1, max_length=MAX_PICTURES, validation_alias="imageList"
    )


@blueprint.post("/extra-single-image")
def single() -> Response:
    """Enlarge a picture."""
    asked, digest, misread = read(Single)
    return _enlarge([decode(asked.image, Purpose.IMAGE, "image")], asked, digest, misread)


@blueprint.post("/extra-batch-images")
def batch() -> Response:
    """Enlarge several pictures."""
    asked, digest, misread = read(Batch)
    images = [
        decode(text, Purpose.IMAGE, "imageList", index)
        for index, text in enumerate(asked.image_list)
    ]
    return _enlarge(images, asked, digest, misread)


def _enlarge(
    images: Sequence[Decoded], asked: Single | Batch, digest: str, ignored: Ignored
) -> Response:
    """Answer with enlarged copies of the pictures."""
    sizes = [(image.width, image.height) for image in images]
    upscaler = find_upscaler(asked.upscaler_1, "upscaler_1", ignored)
    upscaler = fitting(upscaler, sizes, "upscaler_1", ignored)
    if asked.extras_upscaler_2_visibility and asked.upscaler_2 not in (None, NO_UPSCALER):
        ignored.add("upscaler_2")
    ignored.add(*(name for name, value in (asked.model_extra or {}).items() if value))
    originals = [
        Original(image.png, size, _size(image, asked))
        for image, size in zip(images, sizes, strict=True)
    ]

    def answer(_jobs: Sequence[Job], larger: Sequence[bytes | None]) -> Response:
        if None in larger:  # interrupted; the filter enlarges alone
            ignored.add("upscaler_1")
        made = [
            jobs.encode(_resize(data or original.data, original.wanted, asked, upscaler.filter))
            for data, original in zip(larger, originals, strict=True)
        ]
        names = escape(", ".join(ignored.names))
        pictures = {"image": made[0]} if isinstance(asked, Single) else {"images": made}
        info = f"<p>Ignored: {names}</p>" if names else ""
        return ignored.sent_with(jsonify(html_info=info, **pictures))

    if upscaler.network is not None:
        submit.check_room()
    return enlarge(originals, upscaler.network, digest, answer)


def _resize(data: bytes, size: Size, asked: Extras, between: Filter) -> bytes:
    """A PNG of a picture in its wanted size."""
    with context().rendering:
        picture = resize.read(data)
        if asked.resize_mode == BY_SIZE and asked.upscaling_crop:
            larger = resize.resize(picture, size, ResizeMode.CROP)
        else:
            larger = resize.enlarge(picture, size, between)
        return codec.encode(larger, OutputFormat.PNG)


def _size(image: Decoded, asked: Extras) -> Size:
    """The wanted width and height in pixels; without cropping, the smallest that covers a size."""
    if (asked.upscaler_1 or NO_UPSCALER).strip().lower() == NO_UPSCALER.lower():
        return image.width, image.height  # A1111 does nothing then
    width, height = asked.upscaling_resize_w, asked.upscaling_resize_h
    if asked.resize_mode != BY_SIZE or not asked.upscaling_crop:
        scale = asked.upscaling_resize
        if asked.resize_mode == BY_SIZE:
            scale = max(width / image.width, height / image.height)
        width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if width * height > MAX_PIXELS:
        detail = f"makes {width}×{height}; a larger copy may have {MAX_PIXELS} pixels"
        raise wrong(detail, "upscaling_resize")
    return width, height
