"""What a LoRA that distils a model to few steps chooses where a request leaves it open."""

from darkroom.catalog.families import Guidance
from darkroom.catalog.loras import AdapterCatalog, UnknownLoraError
from darkroom.catalog.model_entry import ModelEntry
from darkroom.errors import message
from darkroom.requests import Txt2ImgRequest


def choose(
    asked: Txt2ImgRequest, model: ModelEntry, adapters: AdapterCatalog
) -> tuple[Txt2ImgRequest, tuple[str, ...]]:
    """A request with the defaults of the first such LoRA, and a note of those that it took."""
    for lora in asked.loras:
        try:
            defaults = adapters.loras.find(lora.name).info.defaults
        except UnknownLoraError:
            continue  # refused later
        if defaults is None or lora.scale <= 0:
            continue
        chosen = {
            name: value
            for name, value in defaults.model_dump(exclude_none=True).items()
            if getattr(asked, name) is None and _may_choose(name, value, model)
        }
        if not chosen:
            break
        note = message(
            "lora_few_steps",
            "{lora} is for few steps, and chose what the request left open: {choices}",
            lora=lora.name,
            choices=", ".join(f"{name} {value}" for name, value in chosen.items()),
        )
        return asked.model_copy(update=chosen), (note,)
    return asked, ()


def _may_choose(field: str, value: object, model: ModelEntry) -> bool:
    if field == "scheduler":
        return not model.info.schedulers or value in model.info.schedulers
    if field == "guidance_scale":
        return model.spec.takes(field) and model.spec.guidance is not Guidance.EMBEDDED
    return True
