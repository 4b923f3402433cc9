"""The models on this server, described by their JSON and headers without loading them.

A model is a folder in the diffusers format or a single `.safetensors` file: the embedded tintype,
and what is in the models directory. The owner's notes on it, `darkroom.json` in the folder or
`<name>.json` beside the file, override what its files say; other programs' files of that name are
passed over. Models that cannot be used are listed
with the reason.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from darkroom.catalog import checkpoints, families, folders, model_spec
from darkroom.catalog.folders import PICKLED, PICKLES, Variant
from darkroom.catalog.model_spec import ModelSpec, Notes, read_notes, read_sidecar
from darkroom.catalog.weight_files import (
    SAFETENSORS,
    UnusableError,
    cached,
    count_numbers,
    read_header,
    stamp,
)
from darkroom.errors import DarkroomError, Message, did_you_mean, message
from darkroom.responses import ModelInfo

EMBEDDED = Path(__file__).parent.parent / "models"
CONFIGS = EMBEDDED / "configs"  # of the architectures of single files
INCLUDED_UPSCALERS = EMBEDDED / "upscalers"
NOTES = "darkroom.json"
WORD = re.compile(r"[^\W\d_]+")
UNKNOWN_WORDS = message(
    "unknown_words",
    "this demo model knows no word of the prompt; its examples are in GET /models, and "
    "docs/models.md says how to add a real model",
)
# Keys of the notes that override settings of the model's own scheduler.
SCHEDULER_KEYS = frozenset({"prediction_type", "rescale_betas_zero_snr", "timestep_spacing"})


class UnknownModelError(DarkroomError, ValueError):
    """There is no usable model of that name on this server."""


class BrokenModelError(UnknownModelError):
    """The model of that name cannot be used. The message says why."""


@dataclass(frozen=True)
class ModelEntry:
    """A model, its files and how to load it.

    Attributes:
        config: the folder of JSON that describes it; `path` itself if that is a folder.
        spec: from its configuration, without the notes.
        variant: of the weights of a folder, such as `fp16`; None for the plain ones.
        scheduler: overrides settings of the model's own scheduler.
        vae: file or folder of the VAE to load instead of its own.
        tiny_vae: file or folder of a small VAE for it.
        latent_rgb: colours of its latents for previews, see `Notes`.
        words: nouns that it knows, if it is a small model that knows few.
    """

    info: ModelInfo
    path: Path
    config: Path
    layout: Literal["folder", "file"]
    spec: ModelSpec
    variant: Variant = None
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    vae: Path | None = None
    tiny_vae: Path | None = None
    latent_rgb: tuple[tuple[float, float, float], ...] | None = None
    words: frozenset[str] = frozenset()

    def notes_on(self, prompt: str) -> list[str]:
        """What a job with this prompt is told: that the model knows no word of it."""
        asked = {word.lower() for word in WORD.findall(prompt)}
        asked |= {word.removesuffix("s") for word in asked} | {w.removesuffix("es") for w in asked}
        return [UNKNOWN_WORDS] if self.words and asked and not asked & self.words else []

    def numbers(self) -> Mapping[str, int]:
        """How many numbers the weights of each of its parts have that are loaded.

        Raises:
            UnusableError: a file is damaged, or gone.
        """
        if self.layout == "folder":
            parts = folders.weights(self.path, self.spec.family, self.variant)
            if self.vae is not None:
                parts.pop("vae", None)
            found = {part: sum(map(count_numbers, files)) for part, files in parts.items()}
        else:
            found = checkpoints.numbers(self.path)
        if self.vae is not None:
            files = self.vae.glob("*.safetensors") if self.vae.is_dir() else [self.vae]
            found["vae"] = found.get("vae", 0) + sum(map(count_numbers, files))
        return found


@dataclass(frozen=True)
class BrokenModel:
    """A folder or file in the models directory that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class _Candidate:
    """A folder or file in the models directory, and how to read it."""

    name: str
    path: Path
    describe: Callable[[Path], ModelEntry]

    def read(self) -> ModelEntry | BrokenModel:
        try:
            return self.describe(self.path)
        except UnusableError as error:
            return BrokenModel(self.name, str(error))
        except OSError as error:
            return BrokenModel(self.name, f"it cannot be read: {error.strerror or error}")


class ModelCatalog:
    """The models on this server, by name.

    The folder is listed at every call, and a model is read again when one of its files changes.

    Args:
        models_dir: folder of models; may be missing. Its neighbours `vae/` and `configs/` have
            VAEs, and configurations of unusual single files.
        default: name of the model for requests without one.
    """

    def __init__(self, models_dir: Path, default: str) -> None:
        self._models_dir = models_dir
        self._vae_dir = models_dir.parent / "vae"
        self._configs_dir = models_dir.parent / "configs"
        self._default = default
        self._recognise = cached(checkpoints.recognise)
        self._check_header = cached(lambda path: bool(read_header(path)))
        self._folder = cached(self._read_folder, self._stamp)
        self._file = cached(self._read_file, self._stamp)

    def entries(self) -> list[ModelEntry]:
        """All usable models."""
        return [found for found in self._all() if isinstance(found, ModelEntry)]

    def broken(self) -> tuple[BrokenModel, ...]:
        """The models that cannot be used."""
        return tuple(found for found in self._all() if isinstance(found, BrokenModel))

    def infos(self) -> tuple[ModelInfo, ...]:
        return tuple(entry.info for entry in self.entries())

    def find(self, name: str | None) -> ModelEntry:
        """Look up a model; None is the default one.

        Raises:
            BrokenModelError: it cannot be used; says why.
            UnknownModelError: there is none of that name; says which there are.
        """
        wanted = name or self._default
        for candidate in self._candidates():  # names are compared, never joined to a path
            if candidate.name == wanted:
                found = candidate.read()
                if isinstance(found, BrokenModel):
                    raise BrokenModelError(
                        message(
                            "broken_model",
                            "model {name!r} cannot be used: {reason}",
                            name=wanted,
                            reason=found.reason,
                        )
                    )
                return found
        names = [info.name for info in self.infos()]
        others = did_you_mean(wanted, names) or f"; there is {', '.join(names)}"
        detail = f"there is no model {wanted!r}{others} (see GET /models)"
        raise UnknownModelError(Message(detail, "unknown_model", {"name": wanted}))

    def _all(self) -> Iterator[ModelEntry | BrokenModel]:
        return (candidate.read() for candidate in self._candidates())

    def _candidates(self) -> Iterator[_Candidate]:
        """All models, folders before files, so that of two with one name the folder has it."""
        found = sorted(_listed(self._models_dir), key=lambda p: (p.is_file(), p.suffix in PICKLES))
        taken = set()
        for path in (*_listed(EMBEDDED), *found):
            if path in (CONFIGS, INCLUDED_UPSCALERS):
                continue
            if path.is_dir():
                model = _Candidate(path.name, path, self._folder)
            elif path.suffix == SAFETENSORS:
                model = _Candidate(path.stem, path, self._file)
            elif path.suffix in PICKLES and path.stem not in taken:  # else there is a safe copy
                model = _Candidate(path.stem, path, _refuse_pickle)
            else:
                continue
            if model.name in taken:
                model = _Candidate(path.name, path, _refuse_namesake)
            taken.add(model.name)
            yield model

    def _stamp(self, path: Path) -> list[object]:
        """What changes when a model's files change, or the files that its notes may name."""
        used = (path.with_suffix(".json"), self._vae_dir, self._configs_dir)
        return [stamp(path), *(stamp(other) for other in used if other.exists())]

    def _read_folder(self, folder: Path) -> ModelEntry:
        if not (folder / folders.INDEX).is_file():
            raise UnusableError(_no_index(folder))
        notes = read_notes(folder / NOTES)
        if notes.config is not None:
            raise UnusableError(f"its notes {NOTES}: config is for single files")
        spec = model_spec.examine(folder, folder.name)
        variant = folders.check(folder, spec.family, self._check_header)
        return self._entry(folder.name, folder, folder, spec, notes, {}, variant)

    def _read_file(self, file: Path) -> ModelEntry:
        checkpoint = self._recognise(file)
        notes = read_sidecar(file.with_suffix(".json"))
        config = self._config(notes.config or checkpoint.config)
        spec = model_spec.examine(config, file.stem)
        entry = self._entry(file.stem, file, config, spec, notes, checkpoint.scheduler)
        if entry.vae is None and not checkpoint.has_vae:
            raise UnusableError("it holds no VAE; name one as `vae` in its notes")
        return entry

    def _entry(
        self,
        name: str,
        path: Path,
        config: Path,
        spec: ModelSpec,
        notes: Notes,
        scheduler: Mapping[str, Any],
        variant: Variant = None,
    ) -> ModelEntry:
        sd_only = SCHEDULER_KEYS | {"vae", "tiny_vae"}
        if spec.family not in families.UNETS and notes.model_fields_set & sd_only:
            raise UnusableError("its notes say what only SD and SDXL models know")
        channels, rows = spec.latent_channels, notes.latent_rgb
        if rows and channels is not None and len(rows) != channels + 1:
            raise UnusableError(
                f"its notes: latent_rgb has {len(rows)} rows; {channels + 1} are wanted, one for "
                "each latent channel and one of offsets"
            )
        info = ModelInfo(
            schedulers=spec.schedulers,
            name=name,
            family=spec.family.name,
            description=notes.description,
            note=notes.note,
            examples=notes.examples,
            sizes=notes.sizes,
            tasks=spec.tasks,
            defaults=spec.defaults.model_copy(update=notes.defaults.model_dump(exclude_none=True)),
            limits=spec.limits.model_copy(update=notes.limits.model_dump(exclude_none=True)),
            fields=spec.fields,
            default=name == self._default,
        )
        noted = notes.model_dump(include=set(SCHEDULER_KEYS), exclude_none=True)
        return ModelEntry(
            info=info,
            path=path,
            config=config,
            layout="folder" if path == config else "file",
            spec=spec,
            variant=variant,
            scheduler={**scheduler, **noted},
            vae=self._vae(notes.vae),
            tiny_vae=self._vae(notes.tiny_vae),
            latent_rgb=notes.latent_rgb,
            words=frozenset(notes.words.split()),
        )

    def _config(self, name: str) -> Path:
        for path in (*_listed(CONFIGS), *_listed(self._configs_dir)):
            if path.name == name and (path / folders.INDEX).is_file():
                return path
        raise UnusableError(f"its notes name the configuration {name!r}, and there is none")

    def _vae(self, name: str | None) -> Path | None:
        if name is None:
            return None
        for path in _listed(self._vae_dir):
            if path.is_dir() and path.name == name and (path / "config.json").is_file():
                return path
            if path.suffix == SAFETENSORS and path.stem == name:
                self._check_header(path)
                return path
        raise UnusableError(f"its notes name the VAE {name!r}, which is not in {self._vae_dir}")


def _listed(folder: Path) -> list[Path]:
    """The entries of a folder that are not hidden; none if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _no_index(folder: Path) -> str:
    names = [path.name for path in _listed(folder)]
    files = [name for name in names if name.endswith((SAFETENSORS, *PICKLES))]
    if files:
        return f"it is a folder of checkpoints ({files[0]} …); put them one level up"
    return f"it has no {folders.INDEX}, so it is no folder in the diffusers format"


def _refuse_pickle(path: Path) -> ModelEntry:
    raise UnusableError(f"{path.name} is a pickled checkpoint: {PICKLED}")


def _refuse_namesake(path: Path) -> ModelEntry:
    raise UnusableError(f"another model has the name of {path.name}; rename one of them")
