"""Models as folders in the diffusers format: whether all parts are there and may be loaded."""

from collections.abc import Callable, Iterator
from pathlib import Path

from darkroom.catalog import weights
from darkroom.catalog.model_spec import UNBATCHED
from darkroom.catalog.reading import UnusableError, read_json
from darkroom.catalog.weights import PICKLES, Variant

# Parts that SD folders come with and that are never loaded.
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model")
INDEX = "model_index.json"
PICKLED = "loading it could run code. Convert it to safetensors"


def parts(folder: Path, family: str) -> dict[str, str]:
    """The class of each part of a model that is loaded, by the part's name.

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
    """Parts that the index says the model does without."""
    for name, value in read_json(folder / INDEX).items():
        if value == [None, None]:
            yield name


def check(folder: Path, family: str, check_header: Callable[[Path], object]) -> Variant:
    """See that a folder can be loaded.

    Args:
        check_header: raises `UnusableError` for weights that are not whole.

    Returns:
        The variant of the weights to load; plain ones go before all others.

    Raises:
        UnusableError: names the part that keeps it from being loaded.
    """
    weighing: dict[str, weights.Variants] = {}
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
    known, variant = weights.choose(weighing.values(), (None, "fp16", "bf16"))
    if not known:
        raise UnusableError(f"its parts {', '.join(weighing)} come in no variant common to all")
    for name, part_weights in weighing.items():
        for file in weights.names(part_weights, variant):
            path = folder / name / file
            try:
                read_json(path) if path.suffix == ".json" else check_header(path)
            except UnusableError as error:
                raise UnusableError(f"its part {name}: {error}") from None
    return variant


def _weights(part: str, names: list[str]) -> weights.Variants:
    found = weights.variants(names)
    if found:
        return found
    pickled = sorted(name for name in names if name.endswith(PICKLES))
    if pickled:
        raise UnusableError(f"its part {part} is pickled ({pickled[0]}): {PICKLED}")
    shards = [name for name in names if name.endswith(".safetensors")]
    lacks = "some of its shards or their index" if shards else "its weights"
    raise UnusableError(f"its part {part} lacks {lacks}")
