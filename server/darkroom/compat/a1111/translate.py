"""Translation of the fields that txt2img and img2img share, and of a client's options."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from darkroom.api import checks, lora_tags
from darkroom.catalog.families import UNETS
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.model_entry import ModelEntry
from darkroom.catalog.models import ModelCatalog, UnknownModelError
from darkroom.compat.a1111 import samplers
from darkroom.compat.a1111.fields import (
    Settings,
    note_unsupported,
    translate_prompt,
    unused_fields,
    wrong,
)
from darkroom.compat.a1111.options import CLIP_SKIP, FORMAT, FORMATS, MODEL, without_effect
from darkroom.compat.ignored import Ignored
from darkroom.requests import MAX_CLIP_SKIP, REQUESTS, OutputFormat, Task, Txt2ImgRequest

DEFAULT_SIDE = 512  # pixels
MAX_SIDE = 16_384  # pixels; more is a mistake, and would overflow in what follows
MAX_STEPS = 150
MAX_GUIDANCE = 30.0
MAX_IMAGES = 64  # of one request
RESCALE = "guidance_rescale"
# Names here of our fields that not every model honours.
NAMES = {
    "guidance_scale": "cfg_scale",
    "strength": "denoising_strength",
    "latent_resize": "resize_mode",
    "padding_mask_crop": "inpaint_full_res",
    "masked_content": "inpainting_fill",
}

Options = Mapping[str, Any]  # that a client has set, by name
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Translated:
    """What all pictures of a request have in common.

    Attributes:
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
    asked: Settings,
    catalog: ModelCatalog,
    adapters: AdapterCatalog,
    options: Options,
    ignored: Ignored,
) -> Translated:
    """Translate a request.

    Args:
        asked: the request.
        catalog, adapters: what there is.
        options: the client's, which the request may override.
        ignored: what could not be read; takes the names of the other fields without effect.

    Raises:
        ProblemError: 400 or 422, for what cannot be left out without making another picture.
    """
    model, clip_skip, output_format = _override(asked, catalog, options, ignored)
    rescale = clamp(asked.guidance_rescale, 0.0, 1.0, RESCALE, ignored)
    ignored.add(*unused_fields(asked))
    prompt = translate_prompt(asked.prompt, "prompt", model, adapters, ignored)
    note_unsupported(asked.negative_prompt, "negative_prompt", ignored)
    unread = lora_tags.split(asked.negative_prompt)[1]  # A1111 reads none there
    ignored.add(*(f"negative_prompt {tag.text}" for tag in unread))
    sampler = samplers.choose(
        asked.sampler_name or asked.sampler_index, asked.scheduler, model.info
    )
    ignored.add(*sampler.ignored)
    width, height = fit_size(asked.width or DEFAULT_SIDE, asked.height or DEFAULT_SIDE, model)
    for name, wanted, side in (("width", asked.width, width), ("height", asked.height, height)):
        if wanted and wanted != side:
            ignored.add(name)
    values: dict[str, Any] = {
        "model": model.info.name,
        **prompt,
        "negative_prompt": asked.negative_prompt,
        "clip_skip": clamp(clip_skip, 0, model.info.limits.max_clip_skip, CLIP_SKIP, ignored),
        "num_inference_steps": clamp(asked.steps, 1, MAX_STEPS, "steps", ignored),
        "guidance_scale": clamp(asked.cfg_scale, 0.0, MAX_GUIDANCE, "cfg_scale", ignored),
        "scheduler": sampler.scheduler,
        "output_format": output_format,
        "width": width,
        "height": height,
    }
    if rescale:
        values[RESCALE] = rescale
    if model.spec.family not in UNETS:  # A1111's defaults are Stable Diffusion's
        defaults = model.info.defaults
        if "cfg_scale" not in asked.model_fields_set:
            values["guidance_scale"] = defaults.guidance_scale
        if "steps" not in asked.model_fields_set:
            values["num_inference_steps"] = defaults.num_inference_steps
    values = honoured(Task.TXT2IMG, values, model, ignored)
    count = max(1, asked.batch_size) * max(1, asked.n_iter)
    if count > MAX_IMAGES:
        detail = f"makes {count} pictures with batch_size; one request may have {MAX_IMAGES}"
        raise wrong(detail, "n_iter")
    return Translated(model, values, count, ignored)


def _override(
    asked: Settings, catalog: ModelCatalog, options: Options, ignored: Ignored
) -> tuple[ModelEntry, int, OutputFormat]:
    """The model, layers to skip and output format: the request's own, else the client's."""
    path = "override_settings"
    given = asked.override_settings
    wanted = str(given.get(FORMAT) or options.get(FORMAT, "png")).lower()
    if wanted not in FORMATS:
        ignored.add(f"{path}.{FORMAT}")
    ignored.add(*(f"{path}.{name}" for name in without_effect(given)))
    layers = given.get(CLIP_SKIP)
    if layers is None:
        layers = options.get(CLIP_SKIP, 1) if asked.clip_skip is None else asked.clip_skip
    skipped = parse_clip_skip(layers, path, CLIP_SKIP) - 1
    if given.get(MODEL):
        model = find_model(catalog, str(given[MODEL]), path, MODEL)
    else:
        model = current_model(catalog, options)
    return model, skipped, FORMATS.get(wanted, OutputFormat.PNG)


def find_model(catalog: ModelCatalog, title: str, *field: str) -> ModelEntry:
    """The model of a checkpoint title: a model's name, with or without an extension and a hash.

    Raises:
        ProblemError: 422, there is no such model; the error is of the field at this path.
    """
    plain = title.strip()
    if plain.endswith("]") and " [" in plain:
        plain = plain[: plain.rindex(" [")]
    names = {entry.info.name.lower(): entry for entry in catalog.entries()}
    for wanted in (title, plain, plain.removesuffix(".safetensors").removesuffix(".ckpt")):
        if wanted.lower() in names:
            return names[wanted.lower()]
    try:
        return catalog.find(plain or "?")
    except UnknownModelError as error:
        raise wrong(str(error), *field) from None


def current_model(catalog: ModelCatalog, options: Options) -> ModelEntry:
    """The model that the client has set if it still exists, else the default one.

    Raises:
        ProblemError: 422, the default one does not exist either.
    """
    for name in (options.get(MODEL), None):
        try:
            return catalog.find(name)
        except UnknownModelError as error:
            reason = str(error)
    raise wrong(reason, MODEL)


def parse_clip_skip(value: Any, *field: str) -> int:
    """A1111's “Clip skip”, where 1 skips nothing; its clients also send 0 for that.

    Raises:
        ProblemError: 422, it is no number, or too large.
    """
    try:
        layers = int(value)
    except (TypeError, ValueError, OverflowError):
        layers = -1
    if not 0 <= layers <= MAX_CLIP_SKIP + 1:
        raise wrong(f"must be a number from 1 to {MAX_CLIP_SKIP + 1}", *field)
    return max(1, layers)


def clamp(value: Number, least: Number, most: Number, field: str, ignored: Ignored) -> Number:
    """The nearest value in the range; the field counts as ignored if that is another value."""
    nearest = min(max(value, least), most)
    if nearest != value:
        ignored.add(field)
    return nearest


def fit_size(width: int, height: int, model: ModelEntry) -> tuple[int, int]:
    """The size itself if the model can make it, else one that it can, of similar proportions."""
    width, height = (min(max(side, 1), MAX_SIDE) for side in (width, height))
    return checks.fit_size(width, height, model.info)


def honoured(
    task: Task, values: Mapping[str, Any], model: ModelEntry, ignored: Ignored
) -> dict[str, Any]:
    """The fields of our own request without those that the model does not honour."""
    kind = REQUESTS[task]
    assert issubclass(kind, Txt2ImgRequest)
    kept = {}
    for name, value in values.items():
        if checks.why_refused(kind, name, value, model.info) is None:
            kept[name] = value
        else:
            ignored.add(NAMES.get(name, name))
    return kept


def usable_strength(
    strength: float, steps: int, model: ModelEntry, field: str, ignored: Ignored
) -> float:
    """A strength from 0 to 1 that leaves at least one of the steps to do."""
    strength = clamp(strength, 0.0, 1.0, field, ignored)
    if model.spec.family.steps_done(steps, strength) >= 1:
        return strength
    ignored.add(field)
    return min(1.0, 1.01 / steps)
