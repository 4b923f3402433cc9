"""A1111's checkpoint titles, which are our models' names."""

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import invalid, pointer
from darkroom.catalog.models import ModelEntry, UnknownModelError
from darkroom.responses import FieldError

SETTING = "sd_model_checkpoint"


def find(title: str, *field: str) -> ModelEntry:
    """The model that a title means: its name, with or without an ending and a hash.

    Args:
        title: as clients send it, which may stem from another server.
        field: where it stood, for the problem.

    Raises:
        ProblemError: 422, there is none.
    """
    plain = title.strip()
    if plain.endswith("]") and " [" in plain:
        plain = plain[: plain.rindex(" [")]
    catalog = context().catalog
    names = {entry.info.name.lower(): entry for entry in catalog.entries()}
    for wanted in (title, plain, plain.removesuffix(".safetensors").removesuffix(".ckpt")):
        if wanted.lower() in names:
            return names[wanted.lower()]
    try:
        return catalog.find(plain or "?")
    except UnknownModelError as error:
        raise invalid([FieldError(pointer=pointer(*field), detail=str(error))]) from None


def current() -> ModelEntry:
    """The caller's model: the one they have set, if it is still there, else the default.

    Raises:
        ProblemError: 422, the default one is not there either.
    """
    here = context()
    chosen = here.preferences.of(access.caller().client).get(SETTING)
    for name in (str(chosen) if chosen else None, None):
        try:
            return here.catalog.find(name)
        except UnknownModelError as error:
            reason = str(error)
    raise invalid([FieldError(pointer=pointer(SETTING), detail=reason)])
