"""Translation of the fields that txt2img and img2img share into fields of our own requests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from darkroom.api import checks
from darkroom.api.errors import ProblemError, invalid
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog, ModelEntry
from darkroom.compat.a1111 import samplers
from darkroom.compat.a1111.fields import (
    DEFAULT_SIDE,
    Settings,
    parse_prompt,
    unsupported_syntax,
    unused_fields,
)
from darkroom.compat.a1111.options import CLIP_SKIP, Options, override
from darkroom.compat.ignored import Ignored
from darkroom.requests import Txt2ImgRequest
from darkroom.responses import FieldError

# Our fields that have another name or meaning in A1111, and those this API does not offer.
TRANSLATED = frozenset(
    {"model", "prompt", "negative_prompt", "loras", "num_inference_steps", "guidance_scale"}
    | {"scheduler", "clip_skip", "output_format", "width", "height"}
    | {"seed", "num_images", "exact", "webhook"}
)
# All others may be sent under our own names, at the top level.
OWN = Txt2ImgRequest.model_fields.keys() - TRANSLATED
MAX_STEPS = 150
MAX_GUIDANCE = 30.0
MAX_SIDE = 16_384  # pixels; more is a mistake, and would overflow in what follows
MAX_IMAGES = 64  # of one request
SD_UPSCALE = "sd upscale"  # the one script that a request may name

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Translated:
    """What all pictures of a request have in common.

    Attributes:
        model: the model to draw with.
        values: fields of our own request, without images, seed and number of images.
        count: number of images.
        ignored: names of ignored fields, to which later steps add theirs.
    """

    model: ModelEntry
    values: Mapping[str, Any]
    count: int
    ignored: Ignored

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.values["width"], self.values["height"]


def translate(
    asked: Settings, catalog: ModelCatalog, adapters: AdapterCatalog, options: Options
) -> Translated:
    """Translate a request.

    Args:
        asked: the request.
        catalog: the models.
        adapters: the LoRAs.
        options: the client's options.

    Raises:
        ProblemError: 400 or 422, for what cannot be left out without making another picture.
    """
    ignored = Ignored()
    chosen = override(catalog, options, asked.override_settings, asked.clip_skip, ignored)
    model = chosen.model
    own = {name: value for name, value in (asked.model_extra or {}).items() if name in OWN}
    unsupported = [name for name in own if checks.why_unsupported(name, model) is not None]
    ignored.add(*unsupported, *(name for name in unused_fields(asked) if name not in own))
    prompt = parse_prompt(asked.prompt, "prompt", model, adapters)
    ignored.add(*prompt.ignored, *unsupported_syntax(asked.negative_prompt, "negative_prompt"))
    sampler = samplers.choose(
        asked.sampler_name or asked.sampler_index, asked.scheduler, model.info
    )
    ignored.add(*sampler.ignored)
    width, height = _size(asked, model, ignored)
    clip_skip = clamp(chosen.clip_skip, 0, model.info.limits.max_clip_skip, CLIP_SKIP, ignored)
    values = {
        "model": model.info.name,
        "prompt": prompt.text,
        "negative_prompt": asked.negative_prompt,
        "loras": [lora.model_dump() for lora in prompt.loras],
        "num_inference_steps": clamp(asked.steps, 1, MAX_STEPS, "steps", ignored),
        "guidance_scale": clamp(asked.cfg_scale, 0.0, MAX_GUIDANCE, "cfg_scale", ignored),
        "scheduler": sampler.scheduler,
        "clip_skip": clip_skip,
        "output_format": chosen.output_format,
        "width": width,
        "height": height,
    }
    values |= {name: value for name, value in own.items() if name not in unsupported}
    return Translated(model, values, _count(asked), ignored)


def check_script(name: str | None, *known: str) -> str | None:
    """The script that a request names, in lower case; None if it names none.

    Raises:
        ProblemError: 422, it is none of those that are known for this task.
    """
    wanted = (name or "").strip().lower()
    if wanted in ("", "none"):
        return None
    if wanted not in known:
        raise ProblemError(422, "script", "Script not found", f"there is no script {name!r}")
    return wanted


def clamp(value: Number, least: Number, most: Number, field: str, ignored: Ignored) -> Number:
    """The nearest value in the range; the field counts as ignored if that is another value."""
    nearest = min(max(value, least), most)
    if nearest != value:
        ignored.add(field)
    return nearest


def fit_size(width: int, height: int, model: ModelEntry) -> tuple[int, int]:
    """The size itself if the model can make it, else one that it can, of similar proportions."""
    width, height = (min(max(side, 1), MAX_SIDE) for side in (width, height))
    if not checks.check_size(width, height, model.info):
        return width, height
    return checks.fit_size(width, height, model.info)


def usable_strength(strength: float, steps: int, field: str, ignored: Ignored) -> float:
    """A strength from 0 to 1 that leaves at least one of the steps to do."""
    strength = clamp(strength, 0.0, 1.0, field, ignored)
    if int(steps * strength) >= 1:
        return strength
    ignored.add(field)
    return min(1.0, 1.01 / steps)


def _size(asked: Settings, model: ModelEntry, ignored: Ignored) -> tuple[int, int]:
    """Width and height in pixels. A side that is not given is 512, or what the model can make."""
    given = {"width": asked.width, "height": asked.height}
    size = fit_size(asked.width or DEFAULT_SIDE, asked.height or DEFAULT_SIDE, model)
    for (name, wanted), side in zip(given.items(), size, strict=True):
        if wanted and wanted != side:
            ignored.add(name)
    return size


def _count(asked: Settings) -> int:
    """The number of images.

    Raises:
        ProblemError: 422, more than one request may ask for.
    """
    count = max(1, asked.batch_size) * max(1, asked.n_iter)
    if count > MAX_IMAGES:
        detail = f"makes {count} pictures with batch_size; one request may have {MAX_IMAGES}"
        raise invalid([FieldError(pointer="#/n_iter", detail=detail)])
    return count
