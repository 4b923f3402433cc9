"""Which fields of a request were sent for something that is not done here."""

from collections.abc import Iterator
from typing import Any

from darkroom.compat.a1111.fields import Settings

# Whatever they say, the picture is the same: where it is kept, and what becomes of the server
# afterwards, is not a client's to decide here.
HARMLESS = frozenset(
    {
        *("save_images", "do_not_save_samples", "do_not_save_grid", "force_task_id"),
        *("override_settings_restore_afterwards", "infotext", "comments"),
    }
)
# What clients send who want nothing. 0, false and what is empty are so of every field.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "eta": (1.0,),
    "s_noise": (1.0,),
    "seed_resize_from_h": (-1,),
    "seed_resize_from_w": (-1,),
    "initial_noise_multiplier": (1.0,),
    "image_cfg_scale": (1.5, 7.0),
    "refiner_switch_at": (0.8, 1.0),
}
HIRES = "hr_"


def unused(asked: Settings) -> Iterator[str]:
    """Names of the fields that ask for something and are read by nobody."""
    for name, value in asked.others.items():
        harmless = name in HARMLESS or name.startswith(HIRES)
        if not harmless and value and value not in NEUTRAL.get(name, ()):
            yield name
    for name, arguments in asked.alwayson_scripts.items():
        if _asks(arguments):
            yield f"alwayson_scripts.{name}"
    if asked.subseed_strength:
        yield from ("subseed", "subseed_strength")


def _asks(arguments: Any) -> bool:
    """Whether an always-on script is told to do anything."""
    if isinstance(arguments, dict):
        arguments = arguments.get("args")
    return any(arguments) if isinstance(arguments, list) else bool(arguments)
