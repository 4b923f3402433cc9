"""Fills a request from `infotext`: a line of settings as it stands in pictures."""

import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.api import lora_tags
from darkroom.api.context import context
from darkroom.catalog.hashes import DIGITS
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
TITLE = re.compile(rf"(?:.* \[)?(?P<hash>{DIGITS.pattern})\]?")
PROMPTS = ("Prompt", "Hires prompt")
MAX_HASHES = 64  # of LoRAs in one line
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
    given = _with_named_model(given)
    line = given.get("infotext")
    if not isinstance(line, str):
        ignored.add(*(["infotext"] if line else []))
        return dict(given)
    found = with_loras(metadata.parse_parameters(line))
    if "Steps" in found:
        found.setdefault("Clip skip", "1")  # as in A1111, which writes no 1
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
    if isinstance(override, dict) and not override.get(MODEL):
        model = find_model(found)
        if model.name is not None:
            given = {**given, OVERRIDE: {**override, MODEL: model.name}}
            ignored.add(*(["infotext Model hash"] if model.changed else []))
        elif found.get("Model"):
            ignored.add("infotext Model")
    return {**filled, **given}


def _with_named_model(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a request, with the model's name where it is called by its hash."""
    override = given.get(OVERRIDE)
    if not isinstance(override, dict) or not isinstance(override.get(MODEL), str):
        return given
    return {**given, OVERRIDE: {**override, MODEL: named(override[MODEL])}}


def named(title: str) -> str:
    """The name of the model of a hash or a title with one, such as `name [6ce0161689]`.

    Other titles, and those of models that are not here, stay as they are.
    """
    found = TITLE.fullmatch(title.strip())
    here = context()
    same = here.hashes.find(found["hash"], here.catalog.entries()) if found else None
    return title if same is None else same.info.name


def with_loras(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings whose prompt names LoRAs as they are called here, by their `Lora hashes`."""
    hashes = settings.get("Lora hashes")
    if not hashes:
        return dict(settings)
    here, names = context(), {}
    entries = here.adapters.loras.entries()
    for pair in itertools.islice(hashes.split(","), MAX_HASHES):
        name, _, digits = pair.partition(":")
        same = here.hashes.find_lora(digits.strip(), entries)
        if same is not None:
            names[name.strip()] = same.info.name
    prompts = {key: settings[key] for key in PROMPTS if key in settings}
    return {**settings, **{key: lora_tags.renamed(said, names) for key, said in prompts.items()}}


@dataclass(frozen=True)
class Meant:
    """The model that settings name, here.

    Attributes:
        name: of the model here; None if it is not here.
        changed: whether its file is another one than that which the settings name.
    """

    name: str | None
    changed: bool = False


def find_model(settings: Mapping[str, str]) -> Meant:
    """The model with the hash in settings, whatever its name is here, or else with the name."""
    here, digits = context(), settings.get("Model hash", "").strip()
    same = here.hashes.find(digits, here.catalog.entries()) if digits else None
    if same is not None:
        return Meant(same.info.name)
    if not settings.get("Model"):
        return Meant(None)
    try:
        entry = here.catalog.find(settings["Model"])
    except UnknownModelError:
        return Meant(None)
    # Digits of other kinds and lengths, as of A1111 before 2023, cannot be compared.
    known = here.hashes.of(entry.path)
    return Meant(entry.info.name, known is not None and DIGITS.fullmatch(digits) is not None)
