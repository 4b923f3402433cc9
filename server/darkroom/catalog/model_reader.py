"""Reads models: folders in the diffusers format, checkpoints, and files of one network.

Nothing but JSON and headers is read. The owner's notes, `darkroom.json` in the folder or
`<name>.json` beside the file, override what a model's files say; other programs' files of that name
only describe it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from darkroom.catalog import (
    checkpoints,
    families,
    folders,
    listing,
    model_spec,
    sidecars,
    single_files,
)
from darkroom.catalog.checkpoints import Checkpoint
from darkroom.catalog.folders import Variant
from darkroom.catalog.gguf_files import GGUF
from darkroom.catalog.listing import CONFIGS, Listed, SharedFolders
from darkroom.catalog.model_entry import TRANSFORMER, ModelEntry, Quantized
from darkroom.catalog.model_spec import ModelSpec, Notes, read_notes, read_sidecar
from darkroom.catalog.sidecars import About
from darkroom.catalog.single_files import Denoiser, Part
from darkroom.catalog.weight_files import (
    SAFETENSORS,
    UnusableError,
    cached,
    read_floats,
    read_header,
    stamp,
    stamps,
)
from darkroom.responses import ModelInfo

Quantization = Literal["none"] | Quantized

NOTES = "darkroom.json"
ENCODER_FOLDERS = ("text_encoders", "clip")  # beside the folder of models
# Keys of the notes that override settings of the model's own scheduler.
SCHEDULER_KEYS = frozenset({"prediction_type", "rescale_betas_zero_snr", "timestep_spacing"})


@dataclass(frozen=True)
class _Recognised:
    """What a file holds, and what its metadata say."""

    found: Denoiser | Checkpoint
    metadata: Mapping[str, str]


class ModelReader:
    """Makes entries of models from their files, and keeps them until one of these changes.

    Args:
        models_dir: its neighbours `vae/`, `text_encoders/` and `configs/` have VAEs, text encoders,
            and configurations of unusual single files.
        default: name of the model for requests without one.
        shared: folders of other programs.
        quantize: what transformers are quantised to when they are loaded, if notes do not say.

    Attributes:
        folder: reads a folder; raises `UnusableError` with the reason if it cannot be used.
        file: reads a file, in the same way.
    """

    def __init__(
        self, models_dir: Path, default: str, shared: SharedFolders, quantize: Quantization
    ) -> None:
        self._quantize = quantize
        self._models_dir = models_dir
        self._shared = shared
        self._vae_dir = models_dir.parent / "vae"
        self._configs_dir = models_dir.parent / "configs"
        self._default = default
        self._recognise = cached(_recognise, _stamp_of_file)
        self._header = cached(single_files.read_header, stamp)
        self._check_floats = cached(_has_floats, stamp)
        self._check_header = cached(_has_header, stamp)
        self.folder = cached(self._read_folder, self._stamp)
        self.file = cached(self._read_file, self._stamp)

    def _stamp(self, listed: Listed) -> list[object]:
        """What changes when a model's files change, or the files that its notes may name."""
        beside = [*listed.beside(*sidecars.ALL)]
        found = [*stamp(listed.path), *stamps(beside)]
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
            return isinstance(self._recognise(listed).found, Denoiser)
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
        quantised = folders.quantised_parts(folder, folders.parts(folder, spec.family))
        quantize = None if TRANSFORMER in quantised else self._quantized(spec, notes)
        return replace(entry, quantised=quantised, quantize=quantize)

    def _read_file(self, listed: Listed) -> ModelEntry:
        recognised = self._recognise(listed)
        checkpoint = recognised.found
        if isinstance(checkpoint, Denoiser):
            return self._read_parts(listed, checkpoint, recognised.metadata)
        notes, passed_over = read_sidecar(listed)
        config = self._config(notes.config or checkpoint.config)
        spec = model_spec.examine(config, listed.stem)
        about = sidecars.about(listed, recognised.metadata)
        entry = self._entry(listed, config, spec, notes, about, checkpoint.scheduler)
        if entry.vae is None and not checkpoint.has_vae:
            raise UnusableError("it holds no VAE; name one as `vae` in its notes")
        return replace(
            entry,
            passed_over=passed_over,
            scaled=checkpoint.scaled,
            in_file=checkpoint.numbers,
        )

    def _read_parts(
        self, listed: Listed, denoiser: Denoiser, metadata: Mapping[str, str]
    ) -> ModelEntry:
        """A file of one network, with the files that complete it."""
        notes, passed_over = read_sidecar(listed)
        described = notes.config or denoiser.config
        if described is None:
            raise UnusableError(f"it is a {denoiser.what} alone, of a model that is not known here")
        config = self._config(described)
        spec = model_spec.examine(config, listed.stem)
        about = sidecars.about(listed, metadata)
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
        for path in (*listing.children(CONFIGS), *listing.children(self._configs_dir)):
            if path.name == name and (path / folders.INDEX).is_file():
                return path
        raise UnusableError(f"its notes name the configuration {name!r}, and there is none")

    def _vae(self, name: str | None) -> Path | None:
        if name is None:
            return None
        for path in (path for folder in self._vae_dirs() for path in listing.children(folder)):
            if path.is_dir() and path.name == name and (path / "config.json").is_file():
                return path
            if path.suffix == SAFETENSORS and path.stem == name:
                self._check_floats(path)
                return path
        raise UnusableError(f"its notes name the VAE {name!r}, which is not in {self._vae_dir}")


def _recognise(listed: Listed) -> _Recognised:
    """Read a file's header once, and keep no more of it than is needed: it may be large."""
    header = single_files.read_header(listed.path)
    denoiser = single_files.recognise(header, listed.stem)
    if denoiser is not None:
        return _Recognised(denoiser, header.metadata)
    if listed.path.suffix.lower() == GGUF:
        raise UnusableError(f"{listed.name} holds no diffusion transformer that is known here")
    return _Recognised(checkpoints.recognise(header, listed.name), header.metadata)


def _stamp_of_file(listed: Listed) -> list[object]:
    return stamp(listed.path)


def _has_floats(path: Path) -> bool:
    return bool(read_floats(path))


def _has_header(path: Path) -> bool:
    return bool(read_header(path))


def _no_index(folder: Path) -> str:
    list(folder.iterdir())  # says why, if it cannot be read
    return f"it has no {folders.INDEX}, so it is no folder in the diffusers format"
