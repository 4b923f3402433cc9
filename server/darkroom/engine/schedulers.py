"""Building one scheduler instance per image; schedulers keep state and cannot be shared."""

from typing import Any

import diffusers

from darkroom.catalog import schedulers as table


def build(name: str, model_config: dict[str, Any]) -> Any:
    """A fresh scheduler: a diffusers `SchedulerMixin`.

    Args:
        name: from the catalog, with or without a spacing suffix.
        model_config: the model's own scheduler configuration; its noise schedule and prediction
            type carry over, as with diffusers' `from_config`.

    Raises:
        UnknownSchedulerError: the catalog has no such name.
    """
    entry, spacing = table.find(name)
    options = dict(entry.options)
    if spacing is not None:
        options |= table.SPACINGS[spacing]
    cls = getattr(diffusers, f"{entry.cls}Scheduler")
    return cls.from_config(model_config, **options)
