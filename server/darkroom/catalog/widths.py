"""Whether the parts of a model fit together, by the widths in their configurations.

diffusers does not compare them: a model whose parts do not fit loads, and fails in its first call.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.catalog.families import SD, SDXL, Family
from darkroom.catalog.weight_files import UnusableError, read_json


@dataclass(frozen=True)
class Rule:
    """A width of the network that denoises, which other parts have to have together.

    Attributes:
        reads: key of the network's configuration.
        parts: names of the parts, and the keys of their configurations.
        times: how often the network reads each number of theirs, side by side.
    """

    reads: str
    parts: tuple[tuple[str, str], ...]
    times: int = 1


_FLUX = (
    Rule("joint_attention_dim", (("text_encoder_2", "d_model"),)),
    Rule("pooled_projection_dim", (("text_encoder", "hidden_size"),)),
    Rule("in_channels", (("vae", "latent_channels"),), times=4),  # 2×2 latent pixels a token
)
_QWEN = (
    Rule("joint_attention_dim", (("text_encoder", "hidden_size"),)),
    Rule("in_channels", (("vae", "z_dim"),), times=4),
)
# By the families' names.
RULES: Mapping[str, tuple[Rule, ...]] = {
    "sd": (Rule("cross_attention_dim", (("text_encoder", "hidden_size"),)),),
    "sdxl": (
        Rule(
            "cross_attention_dim",
            (("text_encoder", "hidden_size"), ("text_encoder_2", "hidden_size")),
        ),
    ),
    "sd3": (
        Rule("joint_attention_dim", (("text_encoder_3", "d_model"),)),
        Rule(
            "pooled_projection_dim",
            (("text_encoder", "projection_dim"), ("text_encoder_2", "projection_dim")),
        ),
        Rule("in_channels", (("vae", "latent_channels"),)),
    ),
    "flux": _FLUX,
    "flux-kontext": _FLUX,
    "flux2-klein": (
        # The outputs of three of its layers.
        Rule("joint_attention_dim", (("text_encoder", "hidden_size"),), times=3),
        Rule("in_channels", (("vae", "latent_channels"),), times=4),
    ),
    "z-image": (
        Rule("cap_feat_dim", (("text_encoder", "hidden_size"),)),
        Rule("in_channels", (("vae", "latent_channels"),)),
    ),
    "qwen-image": _QWEN,
    "qwen-image-edit": _QWEN,
    "qwen-image-edit-plus": _QWEN,
}


def check(config: Path, family: Family) -> None:
    """Raise `UnusableError` for parts of a model that do not fit together; names both widths.

    A width that a configuration does not tell is not compared.
    """
    network = "unet" if family in (SD, SDXL) else "transformer"
    reads = _config(config, network)
    for rule in RULES.get(family.name, ()):
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
