"""What A1111's prompts say beside words: LoRAs to load, and syntax that is not read here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from darkroom.api.parsing import loras
from darkroom.catalog.models import ModelEntry
from darkroom.requests import Lora

MAX_LORAS = 8
MAX_SCALE = 4.0

EXTRA = re.compile(r"<(?P<kind>[a-z]{1,20}):(?P<name>[^:<>]{1,200})(?::(?P<scale>[^:<>]*))?[^<>]*>")
# Each tries at a bracket and ends at the next one, so long prompts take long only once.
SYNTAX = (
    ("[from:to:when]", re.compile(r"(?<!\\)\[[^\[\]]*:\s*[0-9.]+\s*\]")),
    ("[a|b]", re.compile(r"(?<!\\)\[[^\[\]|]*\|[^\[\]]*\]")),
    ("AND", re.compile(r"\bAND\b")),
)


@dataclass(frozen=True)
class PromptParts:
    """A prompt taken apart.

    Attributes:
        text: without what asks for LoRAs.
        loras: that it asks for, and that there are.
        ignored: what else it asks for.
    """

    text: str
    loras: tuple[Lora, ...]
    ignored: tuple[str, ...]


def read(prompt: str, field: str, model: ModelEntry) -> PromptParts:
    """Take a prompt apart.

    Args:
        prompt: as it was sent.
        field: its name.
        model: that is to draw it.
    """
    scales: dict[str, float] = {}
    ignored = []
    for found in EXTRA.finditer(prompt):
        scale = _scale(found["scale"])
        if found["kind"] == "lora" and scale is not None:
            scales[found["name"]] = scales.get(found["name"], 0.0) + scale
        else:
            ignored.append(f"{field} {found[0]}")
    wanted = [Lora(name=name, scale=_limited(scale)) for name, scale in scales.items()]
    usable = tuple(lora for lora in wanted if not loras.check([lora], model))[:MAX_LORAS]
    ignored += [f"{field} <lora:{lora.name}>" for lora in wanted if lora not in usable]
    text = EXTRA.sub("", prompt)
    ignored += unread(text, field)
    return PromptParts(text.strip() if text != prompt else prompt, usable, tuple(ignored))


def unread(text: str, field: str) -> Sequence[str]:
    """Syntax that is there, and is drawn as the text it is made of."""
    return [f"{field} {name}" for name, pattern in SYNTAX if pattern.search(text)]


def _scale(text: str | None) -> float | None:
    if text is None or not text.strip():
        return 1.0
    try:
        scale = float(text)
    except ValueError:
        return None
    return scale if abs(scale) <= 1e6 else None


def _limited(scale: float) -> float:
    return max(-MAX_SCALE, min(MAX_SCALE, scale))
