"""The models on this server, described by their JSON and headers without loading them.

A model is a folder in the diffusers format or a single `.safetensors` file: the embedded tintype,
what is in the models directory, and in folders of other programs. The owner's notes on it,
`darkroom.json` in the folder or `<name>.json` beside the file, override what its files say; other
programs' files of that name only describe it. Models that cannot be used are listed with the
reason.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from darkroom.catalog import (
    addons,
    checkpoints,
    families,
    folders,
    listing,
    model_spec,
    sidecars,
    single_files,
)
from darkroom.catalog.addons import NO_FOLDERS
from darkroom.catalog.folders import PICKLED, PICKLES, Variant
from darkroom.catalog.gguf_files import GGUF
from darkroom.catalog.listing import Listed, SharedFolders
from darkroom.catalog.model_spec import ModelSpec, Notes, read_notes, read_sidecar
from darkroom.catalog.sidecars import About
from darkroom.catalog.single_files import Denoiser, Part
from darkroom.catalog.weight_files import (
    SAFETENSORS,
    UnusableError,
    cached,
    count_numbers,
    read_floats,
    read_header,
    read_json,
    stamp,
)
from darkroom.config import Settings
from darkroom.errors import DarkroomError, Message, did_you_mean, message
from darkroom.requests import UPSCALERS
from darkroom.responses import ModelInfo

EMBEDDED = Path(__file__).parent.parent / "models"
CONFIGS = EMBEDDED / "configs"  # of the architectures of single files
INCLUDED_UPSCALERS = EMBEDDED / "upscalers"
NOTES = "darkroom.json"
TRANSFORMER = "transformer"  # the part that can be quantised
ENCODER_FOLDERS = ("text_encoders", "clip")  # beside the folder of models
Quantized = Literal["int8", "fp8"]
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
class NumberBytes:
    """Bytes that each number of a model's weights takes in a worker's memory.

    Attributes:
        unet: of models with a UNet of Stable Diffusion.
        transformer: of the others.
        denoiser: of the network that is called at every step, if it is kept in less.
    """

    unet: int
    transformer: int
    denoiser: int | None = None


@dataclass(frozen=True)
class ModelEntry:
    """A model, its files and how to load it.

    Attributes:
        config: the folder of JSON that describes it; `path` itself if that is a folder.
        spec: from its configuration, without the notes.
        layout: a `file` is loaded whole by its pipeline; of `parts` each is loaded by itself.
        variant: of the weights of a folder, such as `fp16`; None for the plain ones.
        quantize: what its transformer is quantised to when it is loaded; None for as it is.
        parts: where the weights of each part are, of a model of `parts`.
        scheduler: overrides settings of the model's own scheduler.
        vae: file or folder of the VAE to load instead of its own.
        tiny_vae: file or folder of a small VAE for it.
        latent_rgb: colours of its latents for previews, see `Notes`.
        words: nouns that it knows, if it is a small model that knows few.
        passed_over: files beside it that are not read as notes, each with the reason.
        picture: a file that shows what it draws; its own file if that holds one.
    """

    info: ModelInfo
    path: Path
    config: Path
    layout: Literal["folder", "file", "parts"]
    spec: ModelSpec
    variant: Variant = None
    quantize: Quantized | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    vae: Path | None = None
    tiny_vae: Path | None = None
    latent_rgb: tuple[tuple[float, float, float], ...] | None = None
    words: frozenset[str] = frozenset()
    passed_over: tuple[str, ...] = ()
    picture: Path | None = None

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
        return self._numbers

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        if self.layout == "folder":
            found = {part: sum(map(count_numbers, files)) for part, files in self._files.items()}
        elif self.layout == "parts":
            found = {name: part.numbers() for name, part in self.parts.items()}
        else:
            found = checkpoints.numbers(self.path)
        if self.vae is not None:
            files = self.vae.glob("*.safetensors") if self.vae.is_dir() else [self.vae]
            found["vae"] = found.get("vae", 0) + sum(map(count_numbers, files))
        return found

    def expected_parts(self, number_bytes: NumberBytes) -> dict[str, int]:
        """Bytes of each part in memory; raises as `numbers`."""
        unet = self.spec.family in families.UNETS
        size = number_bytes.unet if unet else number_bytes.transformer
        denoiser = number_bytes.denoiser or size if self.quantize is None else 1
        kept: dict[str, int] = {}  # as on the disk
        if self.layout == "parts":
            return {
                name: part.expected_bytes(denoiser if name in folders.DENOISERS else size)
                for name, part in self.parts.items()
            }
        if self.layout == "folder":
            files = self._files
            for part in folders.quantised_parts(self.path, files):
                kept[part] = sum(file.stat().st_size for file in files[part])
        return kept | {
            part: numbers * (denoiser if part in folders.DENOISERS else size)
            for part, numbers in self.numbers().items()
            if part not in kept
        }

    @cached_property
    def text_dim(self) -> int | None:
        """Width of the text embeddings that its UNet reads; None if its config lacks it."""
        try:
            width = read_json(self.config / "unet" / "config.json").get("cross_attention_dim")
        except UnusableError:
            return None
        return width if isinstance(width, int) else None

    @cached_property
    def transformer_width(self) -> int | None:
        """The width of its transformer; None if its config does not tell."""
        try:
            said = read_json(self.config / "transformer" / "config.json")
        except UnusableError:
            return None
        sizes = [said.get("dim"), said.get("num_attention_heads"), said.get("attention_head_dim")]
        match sizes:
            case [int(width), _, _]:
                return width
            case [_, int(heads), int(size)]:
                return heads * size
        return None

    @property
    def _files(self) -> dict[str, list[Path]]:
        """The files of a folder from which its parts are loaded."""
        parts = folders.weights(self.path, self.spec.family, self.variant)
        if self.vae is not None:
            parts.pop("vae", None)
        return parts

    @cached_property
    def size_bytes(self) -> int:
        """Of its own files from which it is loaded; 0 if they are gone."""
        files = [self.path, *{part.path for part in self.parts.values()} - {self.path}]
        if self.layout == "folder":
            files = [file for part in self._files.values() for file in part]
        try:
            return sum(file.stat().st_size for file in files)
        except OSError:
            return 0


@dataclass(frozen=True)
class BrokenModel:
    """A folder or file among the models that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class _Candidate:
    """A folder or file among the models, and how to read it."""

    name: str
    listed: Listed
    describe: Callable[[Listed], ModelEntry]

    def read(self) -> ModelEntry | BrokenModel:
        try:
            return self.describe(self.listed)
        except UnusableError as error:
            return BrokenModel(self.name, str(error))
        except OSError as error:
            return BrokenModel(self.name, f"it cannot be read: {error.strerror or error}")


class ModelCatalog:
    """The models on this server, by name.

    The folders are listed at every call, and a model is read again when one of its files changes.

    Args:
        models_dir: folder of models; may be missing. Its neighbours `vae/` and `configs/` have
            VAEs, and configurations of unusual single files.
        default: name of the model for requests without one.
        shared: folders of other programs. Of two models with one name, the first has it.
        quantize: what transformers are quantised to when they are loaded, if notes do not say.
    """

    def __init__(
        self,
        models_dir: Path,
        default: str,
        shared: SharedFolders = NO_FOLDERS,
        quantize: Literal["none"] | Quantized = "none",
    ) -> None:
        self._quantize = quantize
        self._models_dir = models_dir
        self._shared = shared
        self._vae_dir = models_dir.parent / "vae"
        self._configs_dir = models_dir.parent / "configs"
        self._default = default
        self._recognise = cached(checkpoints.recognise, stamp)
        self._header = cached(single_files.read_header, stamp)
        self._check_floats = cached(_has_floats, stamp)
        self._check_header = cached(_has_header, stamp)
        self._folder = cached(self._read_folder, self._stamp)
        self._file = cached(self._read_file, self._stamp)

    @classmethod
    def of(cls, settings: Settings) -> "ModelCatalog":
        """The models that the settings name."""
        return cls(
            settings.models_dir,
            settings.models.default,
            SharedFolders(settings.models.paths),
            settings.engine.quantize,
        )

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
        taken: set[str] = set()
        for root in self._roots():
            found = [each for each in root if each.is_folder or addons.may_be_weights(each)]
            for listed in sorted(found, key=_rank):
                name, describe = listed.key, self._describe(listed)
                if describe is _refuse_pickle and name in taken:  # there is a safe copy
                    continue
                if name in taken:
                    name, describe = listed.file, _refuse_namesake
                taken.add(name)
                yield _Candidate(name, listed, describe)

    def _roots(self) -> Iterator[Collection[Listed]]:
        """What is in each folder of models, the server's own ones first."""
        included = (path for path in _children(EMBEDDED) if (path / folders.INDEX).is_file())
        yield [Listed(path, path.name, is_folder=True) for path in included]
        for folder in (self._models_dir, *self._shared.of("models")):
            yield list(listing.walk(folder, folders.is_model))
        for hub in self._shared.hubs():
            yield [each for each in listing.snapshots(hub) if (each.path / folders.INDEX).is_file()]

    def _describe(self, listed: Listed) -> Callable[[Listed], ModelEntry]:
        if listed.key.startswith(UPSCALERS):
            return _refuse_upscaler
        if listed.is_folder:
            return self._folder
        if listed.path.suffix.lower() in PICKLES:
            return _refuse_pickle
        read = listed.path.suffix.lower() == GGUF or addons.why_not_read(listed.path) is None
        return self._file if read else _refuse_ending

    def _stamp(self, listed: Listed) -> list[object]:
        """What changes when a model's files change, or the files that its notes may name."""
        beside = [*listed.beside(*sidecars.ALL)]
        found = [*stamp(listed.path), *(stamp(path) for path in beside)]
        named: tuple[Path, ...] = ()
        if listed.is_folder or beside:  # it may have notes
            named = (self._configs_dir, *self._vae_dirs())
        if not listed.is_folder and self._is_apart(listed):
            named = (self._configs_dir, *self._vae_dirs(), *self._encoder_dirs())
        if named:
            found += [stamp(folder) for folder in named if folder.exists()]
        return found

    def _vae_dirs(self) -> list[Path]:
        return [self._vae_dir, *self._shared.of("vae")]

    def _encoder_dirs(self) -> list[Path]:
        own = [self._models_dir.parent / name for name in ENCODER_FOLDERS]
        return [*own, *self._shared.of("text_encoders")]

    def _part_files(self, kind: str) -> Iterator[tuple[str, Path]]:
        """The names and paths of the files in the folders of VAEs or of text encoders."""
        for folder in self._vae_dirs() if kind == "vae" else self._encoder_dirs():
            for listed in listing.walk(folder):
                if listed.path.suffix.lower() in (SAFETENSORS, GGUF):
                    yield listed.key, listed.path

    def _is_apart(self, listed: Listed) -> bool:
        """Whether a file holds a network that other files complete."""
        try:
            return single_files.recognise(self._header(listed.path), listed.stem) is not None
        except UnusableError:
            return False

    def _read_folder(self, listed: Listed) -> ModelEntry:
        folder = listed.path
        if not (folder / folders.INDEX).is_file():
            raise UnusableError(_no_index(folder))
        notes = read_notes(folder / NOTES)
        if notes.config is not None:
            raise UnusableError(f"its notes {NOTES}: config is for single files")
        spec = model_spec.examine(folder, listed.stem)
        variant = folders.check(folder, spec.family, self._check_floats, self._check_header)
        about = sidecars.about(listed, folders.card(folder))
        entry = self._entry(listed, folder, spec, notes, about, {}, variant)
        fixed = folders.quantised_parts(folder, [TRANSFORMER])
        return replace(entry, quantize=None if fixed else self._quantized(spec, notes))

    def _read_file(self, listed: Listed) -> ModelEntry:
        header = self._header(listed.path)
        denoiser = single_files.recognise(header, listed.stem)
        if denoiser is not None:
            return self._read_parts(listed, denoiser)
        if listed.path.suffix.lower() == GGUF:
            raise UnusableError(f"{listed.name} holds no diffusion transformer that is known here")
        checkpoint = self._recognise(listed.path)
        notes, passed_over = read_sidecar(listed)
        config = self._config(notes.config or checkpoint.config)
        spec = model_spec.examine(config, listed.stem)
        about = sidecars.about(listed, checkpoint.metadata)
        entry = self._entry(listed, config, spec, notes, about, checkpoint.scheduler)
        if entry.vae is None and not checkpoint.has_vae:
            raise UnusableError("it holds no VAE; name one as `vae` in its notes")
        return replace(entry, passed_over=passed_over)

    def _read_parts(self, listed: Listed, denoiser: Denoiser) -> ModelEntry:
        """A file of one network, with the files that complete it."""
        notes, passed_over = read_sidecar(listed)
        described = notes.config or denoiser.config
        if described is None:
            raise UnusableError(f"it is a {denoiser.what} alone, of a model that is not known here")
        config = self._config(described)
        spec = model_spec.examine(config, listed.stem)
        about = sidecars.about(listed, self._header(listed.path).metadata)
        named = dict(notes.parts) | ({} if notes.vae is None else {"vae": notes.vae})
        notes = notes.model_copy(update={"vae": None})
        entry = self._entry(listed, config, spec, notes, about, {})
        own = Part(listed.path, denoiser.prefix)
        classes = folders.parts(config, spec.family)
        others = single_files.complete(
            own,
            denoiser.what,
            classes,
            config,
            spec.family.name,
            self._part_files,
            named,
            self._header,
        )
        network = next(name for name in folders.DENOISERS if name in classes)
        parts = {network: own, **others}
        quantize = None if own.is_gguf else self._quantized(spec, notes)
        return replace(
            entry, layout="parts", parts=parts, passed_over=passed_over, quantize=quantize
        )

    def _quantized(self, spec: ModelSpec, notes: Notes) -> Quantized | None:
        """What a model's transformer is quantised to; `UnusableError` if that is not possible."""
        wanted = notes.quantize or self._quantize
        if wanted == "none" or spec.family in families.UNETS:
            return None
        if find_spec("torchao") is None:
            raise UnusableError(
                f"it cannot be quantised to {wanted}, as the settings or its notes say, without "
                "torchao: `pip install torchao`"
            )
        return wanted

    def _entry(
        self,
        listed: Listed,
        config: Path,
        spec: ModelSpec,
        notes: Notes,
        about: About,
        scheduler: Mapping[str, Any],
        variant: Variant = None,
    ) -> ModelEntry:
        sd_only = SCHEDULER_KEYS | {"vae", "tiny_vae"}
        if spec.family in families.UNETS and notes.quantize is not None:
            raise UnusableError("its notes: quantize is for transformers, and it has a UNet")
        if spec.family not in families.UNETS and any(
            getattr(notes, key) is not None for key in sd_only
        ):
            raise UnusableError("its notes say what only SD and SDXL models know")
        channels, rows = spec.latent_channels, notes.latent_rgb
        if rows and channels is not None and len(rows) != channels + 1:
            raise UnusableError(
                f"its notes: latent_rgb has {len(rows)} rows; {channels + 1} are wanted, one for "
                "each latent channel and one of offsets"
            )
        info = ModelInfo(
            schedulers=spec.schedulers,
            name=listed.key,
            title=about.title,
            family=spec.family.name,
            description=notes.description or about.description,
            trigger_words=about.trigger_words,
            licence=about.licence,
            note=notes.note,
            examples=notes.examples,
            sizes=notes.sizes,
            tasks=spec.tasks,
            defaults=spec.defaults.model_copy(update=notes.defaults.model_dump(exclude_none=True)),
            limits=spec.limits.model_copy(update=notes.limits.model_dump(exclude_none=True)),
            fields=spec.fields,
            default=listed.key == self._default,
        )
        noted = notes.model_dump(include=set(SCHEDULER_KEYS), exclude_none=True)
        return ModelEntry(
            info=info,
            path=listed.path,
            config=config,
            layout="folder" if listed.is_folder else "file",
            spec=spec,
            variant=variant,
            scheduler={**scheduler, **noted},
            vae=self._vae(notes.vae),
            tiny_vae=self._vae(notes.tiny_vae),
            latent_rgb=notes.latent_rgb,
            words=frozenset(notes.words.split()),
            picture=about.picture,
        )

    def _config(self, name: str) -> Path:
        for path in (*_children(CONFIGS), *_children(self._configs_dir)):
            if path.name == name and (path / folders.INDEX).is_file():
                return path
        raise UnusableError(f"its notes name the configuration {name!r}, and there is none")

    def _vae(self, name: str | None) -> Path | None:
        if name is None:
            return None
        for path in (path for folder in self._vae_dirs() for path in _children(folder)):
            if path.is_dir() and path.name == name and (path / "config.json").is_file():
                return path
            if path.suffix == SAFETENSORS and path.stem == name:
                self._check_floats(path)
                return path
        raise UnusableError(f"its notes name the VAE {name!r}, which is not in {self._vae_dir}")


def _has_floats(path: Path) -> bool:
    return bool(read_floats(path))


def _has_header(path: Path) -> bool:
    return bool(read_header(path))


def _children(folder: Path) -> list[Path]:
    """The entries of a folder that are not hidden; none if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _rank(listed: Listed) -> tuple[bool, bool]:
    """Folders first, pickles last: of two with one name the first has it."""
    return not listed.is_folder, listed.path.suffix.lower() in PICKLES


def _no_index(folder: Path) -> str:
    list(folder.iterdir())  # says why, if it cannot be read
    return f"it has no {folders.INDEX}, so it is no folder in the diffusers format"


def _refuse_pickle(listed: Listed) -> ModelEntry:
    raise UnusableError(f"{listed.name} is a pickled checkpoint: {PICKLED}")


def _refuse_namesake(listed: Listed) -> ModelEntry:
    raise UnusableError(f"another model has the name of {listed.name}; rename one of them")


def _refuse_upscaler(listed: Listed) -> ModelEntry:
    raise UnusableError(
        f"its name begins as those of networks that enlarge pictures do, with {UPSCALERS}; rename "
        f"the folder of {listed.name}"
    )


def _refuse_ending(listed: Listed) -> ModelEntry:
    raise UnusableError(f"{listed.name} {addons.why_not_read(listed.path)}")
