"""Models as folders in the diffusers format: whether all parts are there and may be loaded.

diffusers and transformers name weights `diffusion_pytorch_model.safetensors` and
`model.safetensors`, with a variant (`.fp16`) before the end. Large ones are split into numbered
shards with an index.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from darkroom.catalog import weight_files
from darkroom.catalog.families import UNETS, Family
from darkroom.catalog.weight_files import UnusableError, read_json

INDEX = "model_index.json"
DENOISERS = ("unet", "transformer")  # names of the parts that are called at every step
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # parts of SD, never loaded
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model")
PICKLES = (*weight_files.PICKLES, ".msgpack", ".h5")
PICKLED = "loading it could run code. Convert it to safetensors"

_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)"
    r"(?:\.(?P<variant>\w+))?"
    r"(?:-(?P<shard>\d{5})-of-(?P<shards>\d{5}))?"
    r"\.safetensors"
)
_INDEX = re.compile(
    r"(?:diffusion_pytorch_model|model)\.safetensors\.index(?:\.(?P<variant>\w+))?\.json"
)

# How a part's config says that it is quantised → the module that reads it, and its package.
LIBRARIES: Mapping[str, tuple[str, str]] = {
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
    "gguf": ("gguf", "gguf"),
    "quanto": ("optimum", "optimum-quanto"),
    "torchao": ("torchao", "torchao"),
}
NEEDS_GPU = "bitsandbytes"  # diffusers unpacks its weights on a GPU only
_LICENCE = re.compile(r"^(license(?:_name)?): *[\"']?([\w .+-]{1,100})", re.MULTILINE)
CARD_BYTES = 4096  # of a card that are read: those that describe it come first

Variant = str | None  # None: the plain files
Variants = Mapping[Variant, tuple[str, ...]]


def is_model(names: Collection[str]) -> bool:
    """Whether a folder that holds these is meant as a model, or as a part of one."""
    return INDEX in names or "config.json" in names or any(part in names for part in DENOISERS)


def card(folder: Path) -> dict[str, str]:
    """What a model's card says of its licence, by the name of that in the card."""
    try:
        with weight_files.open_file(folder / "README.md") as file:
            head = file.read(CARD_BYTES).decode("utf-8", "ignore")
    except OSError:
        return {}
    found = dict(_LICENCE.findall(head.partition("\n---")[0])) if head.startswith("---") else {}
    return {"license": found["license_name"]} if "license_name" in found else found


def parts(folder: Path, family: Family) -> dict[str, str]:
    """The class of each part that is loaded, by the part's name.

    Raises:
        UnusableError: the index is not readable.
    """
    found = {}
    for name, value in read_json(folder / INDEX).items():
        match value:
            case [str(), str(cls)] if family not in UNETS or name not in UNUSED:
                found[name] = cls
    return found


def absent(folder: Path) -> Iterator[str]:
    """Names of the optional parts that the model lacks by its index."""
    return (name for name, value in read_json(folder / INDEX).items() if value == [None, None])


def check(
    folder: Path,
    family: Family,
    check_floats: Callable[[Path], object] = weight_files.read_floats,
    check_quantised: Callable[[Path], object] = weight_files.read_header,
) -> Variant:
    """Check that a model can be loaded; returns the variant to load, if possible the plain one.

    Raises:
        UnusableError: names the part that cannot be loaded. The functions raise it for weights
            that are incomplete, or quantised where the part is not said to be.
    """
    weights: dict[str, Variants] = {}
    for name, cls in parts(folder, family).items():
        part = folder / name
        if name != Path(name).name or not part.is_dir():
            raise UnusableError(f"its part {name} is missing")
        names = [path.name for path in part.iterdir()]
        if any(file.endswith(".py") for file in names):
            raise UnusableError(f"its part {name} is code of its own, which is never run")
        if "Tokenizer" in cls:
            if not set(names) & set(TOKENIZER_FILES):
                raise UnusableError(f"its part {name} lacks its vocabulary, {TOKENIZER_FILES[0]}")
        elif "config.json" in names:
            _check_quantisation(name, read_json(part / "config.json"))
            weights[name] = variants(names)
            if not weights[name]:
                raise UnusableError(f"its part {name} {_why_no_weights(names)}")
    quantised = quantised_parts(folder, weights)
    known, variant = choose(weights.values(), (None, "fp16", "bf16"))
    if not known:
        raise UnusableError(f"its parts {', '.join(weights)} come in no variant common to all")
    for name, part_weights in weights.items():
        for file in weight_files_of(part_weights, variant):
            path = folder / name / file
            check_header = check_quantised if name in quantised else check_floats
            try:
                read_json(path) if path.suffix == ".json" else check_header(path)
            except UnusableError as error:
                raise UnusableError(f"its part {name}: {error}") from None
    return variant


def quantised_parts(folder: Path, names: Iterable[str]) -> Mapping[str, str]:
    """Those of a model's parts whose weights another program has quantised, and by what."""
    configs = ((name, folder / name / "config.json") for name in names)
    found = ((name, _quantised_by(read_json(path))) for name, path in configs if path.is_file())
    return {name: method for name, method in found if method is not None}


def _quantised_by(config: Mapping[str, Any]) -> str | None:
    said = config.get("quantization_config")
    if not isinstance(said, dict):
        return None
    return str(said.get("quant_method", "an unknown program"))


def _check_quantisation(name: str, config: Mapping[str, Any]) -> None:
    """Raise `UnusableError` for a part whose weights need a library that is not installed."""
    method = _quantised_by(config)
    if method is None:
        return
    if method not in LIBRARIES:
        raise UnusableError(f"its part {name} is quantised by {method}, which is not read")
    module, package = LIBRARIES[method]
    if find_spec(module) is None:
        raise UnusableError(
            f"its part {name} is quantised by {method}, which is not installed: "
            f"`pip install {package}`"
        )


def weights(folder: Path, family: Family, variant: Variant) -> dict[str, list[Path]]:
    """The safetensors files from which each part of a model is loaded, by the part's name."""
    found = {}
    for name in parts(folder, family):
        part_weights = variants(path.name for path in (folder / name).iterdir())
        if part_weights:
            files = weight_files_of(part_weights, variant)
            found[name] = [folder / name / file for file in files if not file.endswith(".json")]
    return found


def _why_no_weights(names: Iterable[str]) -> str:
    pickled = sorted(name for name in names if name.endswith(PICKLES))
    if pickled:
        return f"is pickled ({pickled[0]}): {PICKLED}"
    if any(name.endswith(weight_files.SAFETENSORS) for name in names):
        return "lacks some of its shards or their index"
    return "lacks its weights"


def variants(names: Iterable[str]) -> Variants:
    """The complete sets of weights among the files of one part, with the indexes of shards."""
    files: dict[Variant, list[str]] = defaultdict(list)
    indexes: dict[Variant, str] = {}
    missing: dict[Variant, set[int]] = {}
    for name in sorted(names):
        if found := _WEIGHTS.fullmatch(name):
            variant = found["variant"]
            files[variant].append(name)
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
    """Whether there is a variant in which all parts of a model can be loaded, and which.

    A part without it is loaded in its plain one. Variants that are not in `order` come last;
    `non_ema`, which is for further training, is never chosen.
    """
    every = list(parts)
    others = sorted({v for part in every for v in part if v is not None and v != "non_ema"})
    for variant in (*order, None, *others):
        in_all = all(variant in part or None in part for part in every)
        if in_all and (variant is None or any(variant in part for part in every)):
            return True, variant
    return False, None


def weight_files_of(part: Variants, variant: Variant) -> tuple[str, ...]:
    """The files from which a part is loaded in a variant."""
    return part[variant] if variant in part else part[None]
