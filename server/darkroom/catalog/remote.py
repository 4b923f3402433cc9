"""The files of a repository on Hugging Face, and which of them a model is loaded from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from darkroom.catalog import folders, pipelines
from darkroom.catalog.model_spec import FAMILIES
from darkroom.catalog.models import SAFETENSORS
from darkroom.errors import DarkroomError

# Files of a model beside its weights: JSON and vocabularies.
PLAIN_FILES = (".json", ".txt", ".model")


class PullError(DarkroomError):
    """A model cannot be downloaded. The message says why and what to do."""


@dataclass(frozen=True)
class Download:
    """What to download.

    Attributes:
        repository: `owner/name` on the hub.
        file: a single-file checkpoint in it; None for a repository in the diffusers format.
        revision: branch, tag or commit; None for the main branch.
        name: of the model on this server; None for the repository's or file's name.
        variant: of the weights; None for the smallest that is lossless on a GPU, `plain` for
            those without a variant.
    """

    repository: str
    file: str | None = None
    revision: str | None = None
    name: str | None = None
    variant: str | None = None


@dataclass(frozen=True)
class Remote:
    """A file on the hub.

    Attributes:
        sha256: of its content; None for small files, for which the hub has none.
    """

    size_bytes: int
    sha256: str | None = None


Remotes = Mapping[str, Remote]  # by path within the repository


def single(order: Download, file: str, there: Remotes) -> Remote:
    """The checkpoint of the given file name.

    Raises:
        PullError: there is none, or it is a pickle.
    """
    if file.endswith(folders.PICKLES):
        raise PullError(f"{file} is pickled: loading it could run code. Look for a safetensors one")
    if file not in there or not file.endswith(SAFETENSORS):
        raise PullError(f"{order.repository} has no checkpoint {file}{_offer(there)}")
    return there[file]


def why_no_model(order: Download, there: Remotes) -> str:
    """Why a repository without `model_index.json` is no model, and what else it offers."""
    singles = _checkpoints(there)
    pickled = [file for file in there if file.endswith(folders.PICKLES)]
    if singles:
        return (
            f"{order.repository} is not in the diffusers format{_offer(there)}; "
            f"pull one with {order.repository}:{singles[0]}"
        )
    if pickled:
        return f"{order.repository} holds pickles only ({pickled[0]}): loading one could run code"
    return f"{order.repository} holds no model in the diffusers format"


def _checkpoints(there: Remotes) -> list[str]:
    return sorted(file for file in there if file.endswith(SAFETENSORS) and "/" not in file)


def _offer(there: Remotes) -> str:
    found = _checkpoints(there)
    return f"; there is {', '.join(found)}" if found else ""


def choose(files: Iterable[str], index: Mapping[str, Any], variant: str | None) -> list[str]:
    """The files of a repository from which a model is loaded.

    Args:
        files: all files of the repository.
        index: `model_index.json`.
        variant: see `Download`.

    Raises:
        PullError: the model could not be used here.
    """
    cls = index.get("_class_name")
    if not isinstance(cls, str) or (cls not in FAMILIES and pipelines.find(cls) is None):
        raise PullError(f"{cls} is not served: {pipelines.why_not(str(cls))}")
    paths = [PurePosixPath(file) for file in files]
    chosen = [folders.INDEX]
    weighing: dict[str, folders.Variants] = {}
    for part, value in index.items():
        match value:
            case [str(), str(part_class)] if cls not in FAMILIES or part not in folders.UNUSED:
                inside = [path.name for path in paths if path.parent == PurePosixPath(part)]
            case _:
                continue
        chosen += [
            f"{part}/{file}"
            for file in inside
            if file.endswith(PLAIN_FILES) and ".index." not in file
        ]
        if "config.json" in inside and "Tokenizer" not in part_class:
            weighing[part] = _weights(part, inside)
    order: tuple[str | None, ...] = ("fp16", "bf16", None)
    if variant is not None:
        order = (None if variant == "plain" else variant,)
    known, found = folders.choose(weighing.values(), order)
    if not known or (variant is not None and found != order[0]):
        there = sorted({str(v or "plain") for part in weighing.values() for v in part})
        raise PullError(f"there is no variant {variant!r} of it; there is {', '.join(there)}")
    for part, variants in weighing.items():
        chosen += [f"{part}/{file}" for file in folders.weight_files(variants, found)]
    return chosen


def _weights(part: str, inside: list[str]) -> folders.Variants:
    found = folders.variants(inside)
    if found:
        return found
    pickled = [file for file in inside if file.endswith(folders.PICKLES)]
    if pickled:
        raise PullError(
            f"its part {part} is there as a pickle only ({pickled[0]}): loading it could run code"
        )
    raise PullError(f"its part {part} has no weights")
