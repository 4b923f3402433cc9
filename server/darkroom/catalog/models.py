"""The models on this server, described by their JSON and headers without loading them.

A model is a folder in the diffusers format or a single `.safetensors` file: the embedded tintype,
and what is in the models directory. Models that cannot be used are listed with the reason.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from darkroom.catalog import checkpoints, folders, model_spec, notes
from darkroom.catalog.folders import PICKLES, Variant
from darkroom.catalog.model_spec import ModelSpec
from darkroom.catalog.notes import NOTES, Notes
from darkroom.catalog.reading import Remembered, UnusableError, read_header
from darkroom.errors import DarkroomError
from darkroom.responses import ModelDefaults, ModelInfo, ModelLimits

EMBEDDED = Path(__file__).parent.parent / "models"
CONFIGS = EMBEDDED / "configs"  # of the architectures of single files
SAFETENSORS = ".safetensors"


class UnknownModelError(DarkroomError, ValueError):
    """There is no usable model of that name on this server."""


class BrokenModelError(UnknownModelError):
    """The model of that name cannot be used. The message says why."""


@dataclass(frozen=True)
class ModelEntry:
    """A model, its files and how to load it.

    Attributes:
        path: the folder or file.
        config: the folder of JSON that describes it; `path` itself if that is a folder.
        layout: what `path` is.
        spec: from its configuration, without the notes.
        variant: of the weights of a folder, such as `fp16`; None for the plain ones.
        scheduler: overrides settings of the model's own scheduler.
        vae: file or folder of the VAE to load instead of its own; None for its own.
        tiny_vae: file or folder of a small VAE for it.
        latent_rgb: colours of its latents for previews, see `Notes`.
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


@dataclass(frozen=True)
class BrokenModel:
    """A folder or file in the models directory that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class _Candidate:
    """A folder or file in the models directory, not read yet."""

    name: str
    path: Path
    read: Callable[["_Candidate"], ModelEntry]


class ModelCatalog:
    """The models on this server, by name.

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
        self._recognise = Remembered(checkpoints.recognise)
        self._check_header = Remembered(lambda path: bool(read_header(path)))

    def entries(self) -> list[ModelEntry]:
        """All usable models. The folder is listed at every call, so that new ones are found."""
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
                found = self._look(candidate)
                if isinstance(found, BrokenModel):
                    raise BrokenModelError(f"model {wanted!r} cannot be used: {found.reason}")
                return found
        names = [entry.info.name for entry in self.entries()]
        close = difflib.get_close_matches(wanted, names, 1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else f"; there is {', '.join(names)}"
        raise UnknownModelError(f"there is no model {wanted!r}{hint} (see GET /models)")

    def _all(self) -> Iterator[ModelEntry | BrokenModel]:
        return (self._look(candidate) for candidate in self._candidates())

    def _look(self, candidate: _Candidate) -> ModelEntry | BrokenModel:
        try:
            return candidate.read(candidate)
        except UnusableError as error:
            return BrokenModel(candidate.name, str(error))
        except OSError as error:
            return BrokenModel(candidate.name, f"it cannot be read: {error.strerror or error}")

    # --- listing the folders -----------------------------------------------------------------

    def _candidates(self) -> Iterator[_Candidate]:
        """All models, folders before files, so that of two with one name the folder has it."""
        taken = set()
        for path in self._paths():
            if path.is_dir():
                name, read = path.name, self._read_folder
            elif path.suffix == SAFETENSORS:
                name, read = path.stem, self._read_file
            elif path.suffix in PICKLES:
                name, read = path.stem, _refuse_pickle
                if name in taken:
                    continue  # there is a safetensors copy of it
            else:
                continue
            if name in taken:
                name, read = path.name, _refuse_namesake
            taken.add(name)
            yield _Candidate(name, path, read)

    def _paths(self) -> Iterator[Path]:
        yield from (path for path in _listed(EMBEDDED) if path != CONFIGS)
        found = _listed(self._models_dir)
        yield from sorted(found, key=lambda path: (path.is_file(), path.suffix in PICKLES))

    # --- reading one -------------------------------------------------------------------------

    def _read_folder(self, candidate: _Candidate) -> ModelEntry:
        folder = candidate.path
        if not (folder / folders.INDEX).is_file():
            raise UnusableError(_no_index(folder))
        noted = notes.read(folder / NOTES)
        if noted.config is not None:
            raise UnusableError(f"its notes {NOTES}: config is for single files")
        body = model_spec.examine(folder)
        variant = folders.check(folder, body.family, self._check_header)
        return self._entry(candidate, folder, "folder", body, noted, variant=variant)

    def _read_file(self, candidate: _Candidate) -> ModelEntry:
        file = candidate.path
        checkpoint = self._recognise(file)
        noted = notes.read(file.with_suffix(".json"))
        config = self._config(noted.config or checkpoint.config)
        entry = self._entry(
            candidate,
            config,
            "file",
            model_spec.examine(config),
            noted,
            scheduler=dict(checkpoint.scheduler),
        )
        if entry.vae is None and not checkpoint.has_vae:
            raise UnusableError("it holds no VAE; name one as `vae` in its notes")
        return entry

    def _entry(
        self,
        candidate: _Candidate,
        config: Path,
        layout: Literal["folder", "file"],
        body: ModelSpec,
        noted: Notes,
        *,
        variant: Variant = None,
        scheduler: Mapping[str, Any] | None = None,
    ) -> ModelEntry:
        trained = {"prediction_type", "rescale_betas_zero_snr", "timestep_spacing"}
        if body.family == model_spec.UNBATCHED and noted.model_fields_set & {
            *trained,
            "vae",
            "tiny_vae",
        }:
            raise UnusableError("its notes say what only SD and SDXL models know")
        said = noted.defaults.model_dump(exclude_none=True)
        limited = noted.limits.model_dump(exclude_none=True)
        return ModelEntry(
            info=ModelInfo(
                name=candidate.name,
                family=body.family,
                description=noted.description,
                tasks=body.tasks,
                defaults=ModelDefaults(**{**body.defaults.model_dump(), **said}),
                limits=ModelLimits(**{**body.limits.model_dump(), **limited}),
                default=candidate.name == self._default,
            ),
            path=candidate.path,
            config=config,
            layout=layout,
            spec=body,
            variant=variant,
            scheduler={
                **(scheduler or {}),
                **noted.model_dump(include=trained, exclude_none=True),
            },
            vae=self._vae(noted.vae),
            tiny_vae=self._vae(noted.tiny_vae),
            latent_rgb=noted.latent_rgb,
        )

    def _config(self, name: str) -> Path:
        for root in (CONFIGS, self._configs_dir):
            for path in _listed(root):
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
    inside = sorted(path.name for path in _listed(folder))
    files = [name for name in inside if name.endswith((SAFETENSORS, *PICKLES))]
    if files:
        return f"it is a folder of checkpoints ({files[0]} …); put them one level up"
    return f"it has no {folders.INDEX}, so it is no folder in the diffusers format"


def _refuse_pickle(candidate: _Candidate) -> ModelEntry:
    raise UnusableError(f"{candidate.path.name} is a pickled checkpoint: {folders.PICKLED}")


def _refuse_namesake(candidate: _Candidate) -> ModelEntry:
    raise UnusableError(f"another model has the name of {candidate.path.name}; rename one of them")
