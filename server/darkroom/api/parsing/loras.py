"""Whether the LoRAs of a request are there and fit its model."""

from collections.abc import Sequence

from darkroom.api.context import context
from darkroom.api.errors import pointer
from darkroom.catalog import loras
from darkroom.catalog.models import ModelEntry
from darkroom.requests import Lora
from darkroom.responses import FieldError


def check(asked: Sequence[Lora], model: ModelEntry) -> list[FieldError]:
    """What is wrong with them, each pointed at by its place in the list."""
    errors = []
    text_dim = loras.model_text_dim(model.config) if asked else None
    seen: set[str] = set()
    for index, lora in enumerate(asked):
        if lora.name in seen:
            detail: str | None = f"{lora.name} is asked for twice; add up the scales"
        else:
            detail = _check_one(lora, model, text_dim)
        if detail is not None:
            errors.append(FieldError(pointer=pointer("loras", index, "name"), detail=detail))
        seen.add(lora.name)
    return errors


def _check_one(lora: Lora, model: ModelEntry, text_dim: int | None) -> str | None:
    try:
        found = context().adapters.find_lora(lora.name)
    except loras.UnknownLoraError as error:
        return str(error)
    return loras.misfit(found.info, model.info.name, text_dim)
