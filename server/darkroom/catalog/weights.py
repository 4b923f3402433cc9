"""Which files of a model's part are its weights, told by their names alone.

diffusers and transformers write `diffusion_pytorch_model.safetensors` and `model.safetensors`,
with a variant (`.fp16`) before the end, and large ones in numbered shards with an index.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

# Loading these can run code of whoever wrote them.
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".msgpack", ".h5")

_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)"
    r"(?:\.(?P<variant>\w+))?"
    r"(?:-(?P<shard>\d{5})-of-(?P<shards>\d{5}))?"
    r"\.safetensors"
)
_INDEX = re.compile(
    r"(?:diffusion_pytorch_model|model)\.safetensors\.index(?:\.(?P<variant>\w+))?\.json"
)

Variant = str | None  # None: the plain files
Variants = Mapping[Variant, tuple[str, ...]]


def variants(names: Iterable[str]) -> Variants:
    """The whole sets of weights among the files of one part; incomplete ones are left out.

    Returns:
        File names by variant, indexes of shards included.
    """
    files: dict[Variant, list[str]] = {}
    indexes: dict[Variant, str] = {}
    missing: dict[Variant, set[int]] = {}
    for name in sorted(names):
        if found := _WEIGHTS.fullmatch(name):
            variant = found["variant"]
            files.setdefault(variant, []).append(name)
            if found["shards"]:
                expected = missing.setdefault(variant, set(range(1, int(found["shards"]) + 1)))
                expected.discard(int(found["shard"]))
        elif found := _INDEX.fullmatch(name):
            indexes[found["variant"]] = name
    whole: dict[Variant, tuple[str, ...]] = {}
    for variant, found_files in files.items():
        if variant not in missing:
            whole[variant] = tuple(found_files)
        elif not missing[variant] and variant in indexes:
            whole[variant] = (*found_files, indexes[variant])
    return whole


def choose(parts: Iterable[Variants], order: Sequence[Variant]) -> tuple[bool, Variant]:
    """The variant to load all parts in; a part that lacks it comes in its plain one.

    Args:
        parts: of one model.
        order: what is preferred; variants that it does not name come last, the exponential
            moving average's absence (`non_ema`, for training on) never.

    Returns:
        Whether there is one, and which.
    """
    every = list(parts)
    others = sorted({v for part in every for v in part if v is not None and v != "non_ema"})
    for variant in (*order, None, *others):
        in_all = all(variant in part or None in part for part in every)
        if in_all and (variant is None or any(variant in part for part in every)):
            return True, variant
    return False, None


def names(part: Variants, variant: Variant) -> tuple[str, ...]:
    """The files that a part is loaded from."""
    return part[variant] if variant in part else part[None]
