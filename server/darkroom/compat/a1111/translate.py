"""From A1111's words to ours, for what both tasks have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from darkroom.api.errors import invalid
from darkroom.api.parsing import sizes
from darkroom.catalog.models import ModelEntry
from darkroom.compat.a1111 import checkpoints, options, prompts, samplers
from darkroom.compat.a1111.fields import SIDE, Settings
from darkroom.compat.a1111.unused import unused
from darkroom.compat.ignored import Ignored
from darkroom.responses import FieldError

MAX_STEPS = 150
MAX_GUIDANCE = 30.0
MAX_SIDE = 16_384  # pixels; more is a mistake, and would overflow what follows
MAX_IMAGES = 64  # of one request

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Translated:
    """What is the same for every picture of a request.

    Attributes:
        model: that draws them.
        values: fields of our own request, without pictures, seed and number of images.
        count: of pictures.
        ignored: takes what else turns out to be left out.
    """

    model: ModelEntry
    values: Mapping[str, Any]
    count: int
    ignored: Ignored

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.values["width"], self.values["height"]


def translate(asked: Settings) -> Translated:
    """Translate.

    Raises:
        ProblemError: 400 or 422, where leaving something out would not be what was asked for.
    """
    ignored = Ignored()
    chosen = options.overrides(asked.override_settings, asked.clip_skip, ignored)
    path = "override_settings"
    model = (
        checkpoints.find(chosen.model, path, checkpoints.SETTING)
        if chosen.model
        else checkpoints.current()
    )
    ignored.add(*unused(asked))
    words = prompts.read(asked.prompt, "prompt", model)
    ignored.add(*words.ignored, *prompts.unread(asked.negative_prompt, "negative_prompt"))
    sampler = samplers.choose(
        asked.sampler_name or asked.sampler_index, asked.scheduler, model.info
    )
    ignored.add(*sampler.ignored)
    width, height = _size(asked, model, ignored)
    clip_skip = within(
        chosen.clip_skip, 0, model.info.limits.max_clip_skip, options.CLIP_SKIP, ignored
    )
    values = {
        "model": model.info.name,
        "prompt": words.text,
        "negative_prompt": asked.negative_prompt,
        "loras": [lora.model_dump() for lora in words.loras],
        "num_inference_steps": within(asked.steps, 1, MAX_STEPS, "steps", ignored),
        "guidance_scale": within(asked.cfg_scale, 0.0, MAX_GUIDANCE, "cfg_scale", ignored),
        "scheduler": sampler.scheduler,
        "clip_skip": clip_skip,
        "output_format": chosen.output_format,
        "width": width,
        "height": height,
    }
    return Translated(model, values, _count(asked), ignored)


def within(value: Number, least: Number, most: Number, name: str, ignored: Ignored) -> Number:
    """The nearest value that there is; the field is ignored if it is another."""
    nearest = min(max(value, least), most)
    if nearest != value:
        ignored.add(name)
    return nearest


def fitted(width: int, height: int, model: ModelEntry) -> tuple[int, int]:
    """A size that the model makes, the same if it can, else of about its proportions."""
    width, height = (min(max(side, 1), MAX_SIDE) for side in (width, height))
    if not sizes.check(width, height, model.info):
        return width, height
    return sizes.fit(width, height, model.info)


def enough(strength: float, steps: int, name: str, ignored: Ignored) -> float:
    """A strength that leaves at least one of the steps to do."""
    strength = within(strength, 0.0, 1.0, name, ignored)
    if int(steps * strength) >= 1:
        return strength
    ignored.add(name)
    return min(1.0, 1.01 / steps)


def _size(asked: Settings, model: ModelEntry, ignored: Ignored) -> tuple[int, int]:
    """Width and height in pixels. What is left out is 512, or as much as the model can."""
    wanted = (asked.width or SIDE, asked.height or SIDE)
    size = fitted(*wanted, model)
    for name, given, side in zip(
        ("width", "height"), (asked.width, asked.height), size, strict=True
    ):
        if given and given != side:
            ignored.add(name)
    return size


def _count(asked: Settings) -> int:
    count = max(1, asked.batch_size) * max(1, asked.n_iter)
    if count > MAX_IMAGES:
        detail = f"makes {count} pictures with batch_size; one request may have {MAX_IMAGES}"
        raise invalid([FieldError(pointer="#/n_iter", detail=detail)])
    return count
