"""Models as folders in the diffusers format: whether all parts are there and may be loaded.

diffusers and transformers name weights `diffusion_pytorch_model.safetensors` and
`model.safetensors`, with a variant (`.fp16`) before the end. Large ones are split into numbered
shards with an index.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from darkroom.catalog.model_spec import UNBATCHED
from darkroom.catalog.reading import UnusableError, read_json

# Parts that SD folders come with and that are never loaded.
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model")
INDEX = "model_index.json"
PICKLED = "loading it could run code. Convert it to safetensors"

# Loading these can run code that is stored in them.
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


def parts(folder: Path, family: str) -> dict[str, str]:
    """The class of each part that is loaded, by the part's name.

    Raises:
        UnusableError: the index is not readable.
    """
    found = {}
    for name, value in read_json(folder / INDEX).items():
        if family != UNBATCHED and name in UNUSED:
            continue
        match value:
            case [str(), str(cls)]:
                found[name] = cls
    return found


def absent(folder: Path) -> Iterator[str]:
    """Names of the optional parts that the model lacks by its index."""
    for name, value in read_json(folder / INDEX).items():
        if value == [None, None]:
            yield name


def check(folder: Path, family: str, check_header: Callable[[Path], object]) -> Variant:
    """Check that a folder can be loaded.

    Args:
        folder: of the model.
        family: of the model.
        check_header: raises `UnusableError` for weights that are incomplete.

    Returns:
        The variant of the weights to load; plain ones go before all others.

    Raises:
        UnusableError: names the part that cannot be loaded.
    """
    weighing: dict[str, Variants] = {}
    for name, cls in parts(folder, family).items():
        part = folder / name
        if name != Path(name).name or not part.is_dir():
            raise UnusableError(f"its part {name} is missing")
        names = [path.name for path in part.iterdir()]
        if any(file.endswith(".py") for file in names):
            raise UnusableError(f"its part {name} is code of its own, which is never run")
        if "Tokenizer" in cls and not set(names) & set(TOKENIZER_FILES):
            raise UnusableError(f"its part {name} lacks its vocabulary, {TOKENIZER_FILES[0]}")
        if "config.json" in names and "Tokenizer" not in cls:
            read_json(part / "config.json")
            weighing[name] = _weights(name, names)
    known, variant = choose(weighing.values(), (None, "fp16", "bf16"))
    if not known:
        raise UnusableError(f"its parts {', '.join(weighing)} come in no variant common to all")
    for name, part_weights in weighing.items():
        for file in weight_files(part_weights, variant):
            path = folder / name / file
            try:
                read_json(path) if path.suffix == ".json" else check_header(path)
            except UnusableError as error:
                raise UnusableError(f"its part {name}: {error}") from None
    return variant


def _weights(part: str, names: list[str]) -> Variants:
    found = variants(names)
    if found:
        return found
    pickled = sorted(name for name in names if name.endswith(PICKLES))
    if pickled:
        raise UnusableError(f"its part {part} is pickled ({pickled[0]}): {PICKLED}")
    shards = [name for name in names if name.endswith(".safetensors")]
    lacks = "some of its shards or their index" if shards else "its weights"
    raise UnusableError(f"its part {part} lacks {lacks}")


def variants(names: Iterable[str]) -> Variants:
    """The complete sets of weights among the files of one part.

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
    complete: dict[Variant, tuple[str, ...]] = {}
    for variant, found_files in files.items():
        if variant not in missing:
            complete[variant] = tuple(found_files)
        elif not missing[variant] and variant in indexes:
            complete[variant] = (*found_files, indexes[variant])
    return complete


def choose(parts: Iterable[Variants], order: Sequence[Variant]) -> tuple[bool, Variant]:
    """The variant in which all parts are loaded; a part without it is loaded in its plain one.

    Args:
        parts: of one model.
        order: preferred variants. Others come last; `non_ema`, which is for further training,
            is never chosen.

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


def weight_files(part: Variants, variant: Variant) -> tuple[str, ...]:
    """The files from which a part is loaded in a variant."""
    return part[variant] if variant in part else part[None]
