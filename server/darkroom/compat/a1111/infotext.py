"""Fills a request from `infotext`: a line of settings as it stands in pictures."""

from collections.abc import Collection, Mapping
from typing import Any

from darkroom.api.context import context
from darkroom.catalog.models import UnknownModelError
from darkroom.compat.ignored import Ignored
from darkroom.images import metadata

# The fields of a request by the names of settings (`modules/ui.py`, `PasteField`).
FIELDS = {
    "Prompt": "prompt",
    "Negative prompt": "negative_prompt",
    "Steps": "steps",
    "Sampler": "sampler_name",
    "Schedule type": "scheduler",
    "CFG scale": "cfg_scale",
    "Seed": "seed",
    "Size-1": "width",
    "Size-2": "height",
    "Denoising strength": "denoising_strength",
    "Clip skip": "clip_skip",
    "Variation seed": "subseed",
    "Variation seed strength": "subseed_strength",
    "Mask blur": "mask_blur",
    "Hires upscale": "hr_scale",
    "Hires resize-1": "hr_resize_x",
    "Hires resize-2": "hr_resize_y",
    "Hires upscaler": "hr_upscaler",
    "Hires steps": "hr_second_pass_steps",
    "Hires sampler": "hr_sampler_name",
    "Hires schedule type": "hr_scheduler",
    "Hires prompt": "hr_prompt",
    "Hires negative prompt": "hr_negative_prompt",
}
SECOND_PASS = ("Hires upscale", "Hires resize-1", "Hires upscaler")  # any of them turns it on
MODEL, OVERRIDE = "sd_model_checkpoint", "override_settings"
# Settings that say how a picture was made, and change nothing.
SAID_ONLY = frozenset(
    {"Version", "User", "Model", "Model hash", "Hashes", "Lora hashes", "TI hashes", "VAE hash"}
)


def fill(given: Mapping[str, Any], known: Collection[str], ignored: Ignored) -> dict[str, Any]:
    """The fields of a request, those that are left out from its `infotext`.

    Settings that change the picture and have no field here count as ignored, as does a model
    that is not on this server.

    Args:
        given: the fields that were sent.
        known: names of the fields that the route has.
        ignored: takes the names of what was ignored.
    """
    line = given.get("infotext")
    if not isinstance(line, str):
        ignored.add(*(["infotext"] if line else []))
        return dict(given)
    found = metadata.parse_parameters(line)
    filled: dict[str, Any] = {}
    override = given.get(OVERRIDE, {})
    for setting, value in found.items():
        name = FIELDS.get(setting)
        if name is not None and value and name in known:
            filled[name] = value
        elif name is None and setting not in SAID_ONLY:
            ignored.add(f"infotext {setting}")
    if any(name in found for name in SECOND_PASS) and "enable_hr" in known:
        filled["enable_hr"] = True
    model = found.get("Model")
    if model and isinstance(override, dict) and not override.get(MODEL):
        try:
            name = context().catalog.find(model).info.name
            given = {**given, OVERRIDE: {**override, MODEL: name}}
        except UnknownModelError:
            ignored.add("infotext Model")
    return {**filled, **given}
