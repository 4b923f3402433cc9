"""LoRAs that a prompt names in tags, as A1111 reads them.

    <lora:NAME>  <lora:NAME:SCALE>  <lora:NAME:TEXT_SCALE:SCALE>
    <lora:NAME:te=TEXT_SCALE:unet=SCALE>

A scale that is left out is 1, and that of the denoiser the one of the text encoders
(`extensions-builtin/Lora/extra_networks_lora.py`). A negative prompt has no tags.
"""

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from darkroom.api import checks
from darkroom.catalog.loras import AdapterCatalog, UnknownLoraError
from darkroom.catalog.model_entry import ModelEntry
from darkroom.requests import MAX_LORA_SCALE, MAX_LORAS, Lora

TAG = re.compile(r"<(?:lora|lyco):(?P<name>[^:<>]{1,200})(?P<arguments>(?::[^:<>]*)*)>")


@dataclass(frozen=True)
class Tag:
    """A LoRA in a prompt.

    Attributes:
        text: as it stands there.
        scale, text_scale: of the denoiser and of the text encoders; None if the tag cannot be read.
    """

    text: str
    name: str
    scale: float | None
    text_scale: float | None


@dataclass(frozen=True)
class Refused:
    """A tag that cannot be applied, and why."""

    tag: Tag
    reason: str


def split(prompt: str) -> tuple[str, list[Tag]]:
    """A prompt without its tags, and these."""
    tags = list(_tags(prompt))
    return (TAG.sub("", prompt).strip() if tags else prompt), tags


def renamed(prompt: str, names: Mapping[str, str]) -> str:
    """A prompt whose tags name LoRAs by other names, where there are any."""

    def with_name(found: re.Match[str]) -> str:
        name = names.get(found["name"].strip())
        return found[0] if name is None else found[0].replace(found["name"], name, 1)

    return TAG.sub(with_name, prompt)


def _tags(prompt: str) -> Iterator[Tag]:
    for found in TAG.finditer(prompt):
        parts = found["arguments"].split(":")[1:]
        named = dict(part.split("=", 1) for part in parts if "=" in part)
        plain = [part for part in parts if "=" not in part]
        text = _number(named.get("te", plain[0] if plain else ""), 1.0)
        unet = _number(named.get("unet", plain[1] if len(plain) > 1 else ""), text)
        yield Tag(found[0], found["name"].strip(), unet, text)


def _number(text: str, default: float | None) -> float | None:
    """The scale that a tag has at a place; None if that is no number of reasonable size."""
    if not text.strip():
        return default
    try:
        scale = float(text)
    except ValueError:
        return None
    return scale if math.isfinite(scale) and abs(scale) <= 1e6 else None


def apply(
    tags: Iterable[Tag], asked: Sequence[Lora], model: ModelEntry, adapters: AdapterCatalog
) -> tuple[tuple[Lora, ...], list[Refused]]:
    """The LoRAs of a request and of its prompt's tags, by their own names; and tags without effect.

    Scales of the same LoRA are added, and limited to what a request may have.
    """
    loras = {lora.name: lora for lora in asked}
    refused = []
    for tag in tags:
        reason, name = _check(tag, model, adapters)
        if reason is None and name not in loras and len(loras) >= MAX_LORAS:
            reason = f"a request may have {MAX_LORAS} LoRAs"
        if reason is not None:
            refused.append(Refused(tag, reason))
            continue
        assert tag.scale is not None
        assert tag.text_scale is not None
        before = loras.get(name, Lora(name=name, scale=0.0))
        scale = _limited(before.scale + tag.scale)
        text = _limited(before.scale_of_text + tag.text_scale)
        loras[name] = Lora(name=name, scale=scale, text_scale=None if text == scale else text)
    return tuple(loras.values()), refused


def _check(tag: Tag, model: ModelEntry, adapters: AdapterCatalog) -> tuple[str | None, str]:
    """Why a tag has no effect, or None; and the LoRA's own name."""
    if tag.scale is None or tag.text_scale is None:
        return "its scale is no number", tag.name
    errors = checks.check_loras([Lora(name=tag.name or "?")], model, adapters)
    if errors:
        return errors[0].detail, tag.name
    return None, adapters.loras.find(tag.name).info.name


def _limited(scale: float) -> float:
    return max(-MAX_LORA_SCALE, min(MAX_LORA_SCALE, scale))


def by_own_names(asked: Sequence[Lora], adapters: AdapterCatalog) -> tuple[Lora, ...]:
    """LoRAs by their own names in place of others; those that are not there stay as they are."""
    found = []
    for lora in asked:
        name = lora.name
        with contextlib.suppress(UnknownLoraError):
            name = adapters.loras.find(lora.name).info.name
        found.append(lora.model_copy(update={"name": name}))
    return tuple(found)
