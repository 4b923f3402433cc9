"""Whether the parts of a model fit together, by the widths in their configurations.

diffusers does not compare them: a model whose parts do not fit loads, and fails in its first call.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from darkroom.catalog.families import SD, SDXL, Family
from darkroom.catalog.weight_files import UnusableError, read_json


def check(config: Path, family: Family) -> None:
    """Raise `UnusableError` for parts of a model that do not fit together; names both widths.

    A width that a configuration does not tell is not compared.
    """
    network = "unet" if family in (SD, SDXL) else "transformer"
    reads = _config(config, network)
    for rule in family.widths:
        parts = rule.parts
        if family is SDXL and not (config / "text_encoder").is_dir():  # the refiner
            parts = parts[1:]
        wanted = _widths(reads.get(rule.reads))
        widths = [_width(_config(config, part), key) for part, key in parts]
        if wanted and None not in widths:
            together = sum(width for width in widths if width is not None) * rule.times
            if wanted != {together}:
                names = " and ".join(part for part, _ in parts)
                has = " + ".join(map(str, widths))
                has = f"{rule.times} × {has}" if rule.times > 1 else has
                needs = " and ".join(map(str, sorted(wanted)))
                raise UnusableError(
                    f"its parts do not fit together: {names} gives {has} numbers, but its "
                    f"{network} reads {needs} ({rule.reads})"
                )


def _config(config: Path, part: str) -> dict[str, Any]:
    """A part's configuration; empty if there is no such part."""
    path = config / part / "config.json"
    return read_json(path) if path.is_file() else {}


def _width(config: Mapping[str, Any], key: str) -> int | None:
    """A width; that of a language model with eyes may stand beside its text."""
    text = config.get("text_config")
    width = config.get(key, text.get(key) if isinstance(text, dict) else None)
    return width if isinstance(width, int) else None


def _widths(value: object) -> set[int]:
    """The widths that a network reads: one, or one for each block."""
    each: Iterable[object] = value if isinstance(value, list) else (value,)
    return {width for width in each if isinstance(width, int)}
