"""What a worker has, as text: those on other machines cannot look into its folders.

Web checks requests with it, so it has all that checks need of a model, but no paths.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from darkroom.catalog import families
from darkroom.catalog.loras import AdapterCatalog, EmbeddingEntry, LoraEntry
from darkroom.catalog.model_entry import NOWHERE, ModelEntry
from darkroom.catalog.model_spec import ModelSpec
from darkroom.catalog.models import ModelCatalog
from darkroom.catalog.upscalers import UpscalerCatalog, UpscalerEntry
from darkroom.catalog.weight_files import UnusableError
from darkroom.config import Settings
from darkroom.requests import UPSCALERS, Task
from darkroom.responses import EmbeddingInfo, LoraInfo, ModelInfo, UpscalerInfo

UNKNOWN = "{}"  # of a worker whose folders others can read


@dataclass(frozen=True)
class Published:
    """What a worker on another machine has, by name."""

    models: Mapping[str, ModelEntry] = field(default_factory=dict)
    loras: Mapping[str, LoraEntry] = field(default_factory=dict)
    embeddings: Mapping[str, EmbeddingEntry] = field(default_factory=dict)
    upscalers: Mapping[str, UpscalerEntry] = field(default_factory=dict)


def write(models: ModelCatalog, adapters: AdapterCatalog, upscalers: UpscalerCatalog) -> str:
    """What is in these catalogs now, as text; the same of the same."""
    found = {
        "models": {entry.info.name: _model(entry) for entry in models.entries()},
        "loras": {
            entry.info.name: {
                "info": _json(entry.info),
                "kinds": entry.kinds,
                "width": entry.width,
                "bundled": dict(entry.bundled),
                "numbers": entry.numbers,
            }
            for entry in adapters.loras.entries()
        },
        "embeddings": {
            entry.info.name: {"info": _json(entry.info), "widths": entry.widths}
            for entry in adapters.embeddings.entries()
        },
        "upscalers": {entry.info.name: _json(entry.info) for entry in upscalers.entries()},
    }
    return json.dumps(found, sort_keys=True, ensure_ascii=False)


def _json(info: Any) -> Any:
    return info.model_dump(mode="json", exclude_defaults=True)


def _model(entry: ModelEntry) -> dict[str, Any]:
    try:
        numbers = dict(entry.numbers())
    except UnusableError:  # a file was just removed
        numbers = {}
    spec = entry.spec
    return {
        "info": _json(entry.info),
        "pipelines": {task.value: name for task, name in spec.pipelines.items()},
        "pipeline": spec.pipeline,
        "guidance": spec.guidance.name,
        "rescales": spec.rescales,
        "text_dim": entry.text_dim,
        "transformer_width": entry.transformer_width,
        "size_bytes": entry.size_bytes,
        "numbers": numbers,
        "words": sorted(entry.words),
    }


def read(text: str) -> Published:
    """What a worker has published. Models of families that are not known here are left out."""
    found = json.loads(text)
    models = {name: _entry(said) for name, said in found.get("models", {}).items()}
    return Published(
        {name: entry for name, entry in models.items() if entry is not None},
        {
            name: LoraEntry(
                NOWHERE / "loras" / name,
                LoraInfo(**said["info"]),
                tuple(said["kinds"]),
                said["width"],
                said["bundled"],
                said["numbers"],
            )
            for name, said in found.get("loras", {}).items()
        },
        {
            name: EmbeddingEntry(
                NOWHERE / "embeddings" / name, EmbeddingInfo(**said["info"]), tuple(said["widths"])
            )
            for name, said in found.get("embeddings", {}).items()
        },
        {
            name: UpscalerEntry(NOWHERE / "upscalers" / name, UpscalerInfo(**said))
            for name, said in found.get("upscalers", {}).items()
        },
    )


def _entry(said: Mapping[str, Any]) -> ModelEntry | None:
    family = families.find(said["pipeline"])
    if family is None:
        return None
    info = ModelInfo(**{"default": False, **said["info"]})
    spec = ModelSpec(
        family=family,
        pipelines={Task(task): name for task, name in said["pipelines"].items()},
        pipeline=said["pipeline"],
        defaults=info.defaults,
        limits=info.limits,
        guidance=families.Guidance[said["guidance"]],
        rescales=said["rescales"],
        latent_channels=None,
        schedulers=info.schedulers,
    )
    path = NOWHERE / "models" / info.name
    entry = ModelEntry(info, path, path, "file", spec, words=frozenset(said["words"]))
    # In the place of what a model of this machine reads from its files.
    vars(entry).update(
        text_dim=said["text_dim"],
        transformer_width=said["transformer_width"],
        size_bytes=said["size_bytes"],
        _numbers=said["numbers"],
    )
    return entry


def may_have(text: str, model: str, loras: Iterable[str]) -> bool:
    """Whether a worker has a model and LoRAs by what it published; true if it published nothing."""
    return text == UNKNOWN or names(text).have(model, loras)


@dataclass(frozen=True)
class Names:
    """The names of what a worker has."""

    models: frozenset[str]
    loras: frozenset[str]

    def have(self, model: str, loras: Iterable[str]) -> bool:
        """Whether a job with this model, or network that enlarges, and these LoRAs can run."""
        return model in self.models and self.loras.issuperset(loras)


def names(text: str) -> Names:
    """The names in what a worker has published."""
    found = json.loads(text)
    upscalers = {UPSCALERS + name for name in found.get("upscalers", ())}
    models = upscalers.union(found.get("models", ()))
    aliases = {alias for each in found.get("loras", {}).values() for alias in _aliases(each)}
    return Names(frozenset(models), frozenset(aliases.union(found.get("loras", ()))))


class Has:
    """What the folders of this process have. `text` is called in one thread, the rest in any."""

    def __init__(self, settings: Settings, *, has_gpu: bool) -> None:
        self._catalogs = (
            ModelCatalog.of(settings, lambda: has_gpu),
            AdapterCatalog.of(settings),
            UpscalerCatalog.of(settings),
        )
        self._names = names(self.text())

    def text(self) -> str:
        """All of it, as it is now."""
        text = write(*self._catalogs)
        self._names = names(text)
        return text

    def __call__(self, model: str, loras: Sequence[str]) -> bool:
        """Whether a job with this model and these LoRAs could run when it was read last."""
        return self._names.have(model, loras)


def _aliases(lora: Mapping[str, Any]) -> list[str]:
    known: list[str] = lora["info"].get("aliases", [])
    return known
