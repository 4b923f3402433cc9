"""The models on this server, described by their JSON and headers without loading them.

A model is a folder in the diffusers format or a single file: the embedded tintype, what is in the
models directory, and in folders of other programs. Models that cannot be used are listed with the
reason.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from darkroom.catalog import addons, folders, listing
from darkroom.catalog.addons import NO_FOLDERS
from darkroom.catalog.folders import PICKLED, PICKLES
from darkroom.catalog.gguf_files import GGUF
from darkroom.catalog.listing import EMBEDDED, Listed, SharedFolders
from darkroom.catalog.model_entry import ModelEntry
from darkroom.catalog.model_reader import ModelReader, Quantization
from darkroom.catalog.weight_files import UnusableError
from darkroom.config import Settings
from darkroom.errors import DarkroomError, Message, did_you_mean, message, shortened
from darkroom.requests import UPSCALERS
from darkroom.responses import ModelInfo


class UnknownModelError(DarkroomError, ValueError):
    """There is no usable model of that name on this server."""


class BrokenModelError(UnknownModelError):
    """The model of that name cannot be used. The message says why."""


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

    At every call folders that have changed are listed again; a model is read again when one of its
    files changes.

    Args:
        models_dir: folder of models; may be missing. Its neighbours `vae/` and `configs/` have
            VAEs, and configurations of unusual single files.
        default: name of the model for requests without one.
        shared: folders of other programs. Of two models with one name, the first has it.
        quantize: what transformers are quantised to when they are loaded, if notes do not say.
        has_gpu: whether a worker has one; asked only for models that need it.
        elsewhere: returns models that workers on other machines have, by name.
        lacks: whether no worker has a model of these folders.
    """

    def __init__(
        self,
        models_dir: Path,
        default: str,
        shared: SharedFolders = NO_FOLDERS,
        quantize: Quantization = "none",
        has_gpu: Callable[[], bool] = lambda: True,
        elsewhere: Callable[[], Mapping[str, ModelEntry]] = dict,
        lacks: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._elsewhere = elsewhere
        self._lacks = lacks
        self._has_gpu = has_gpu
        self._models_dir = models_dir
        self._default = default
        self._shared = shared
        self._walk = listing.KeptWalk(folders.is_model)
        self._reader = ModelReader(models_dir, default, shared, quantize)

    @classmethod
    def of(
        cls,
        settings: Settings,
        has_gpu: Callable[[], bool] = lambda: True,
        elsewhere: Callable[[], Mapping[str, ModelEntry]] = dict,
        lacks: Callable[[str], bool] = lambda _: False,
    ) -> "ModelCatalog":
        """The models that the settings name, and those elsewhere."""
        return cls(
            settings.models_dir,
            settings.models.default,
            SharedFolders(settings.models.paths),
            settings.engine.quantize,
            has_gpu,
            elsewhere,
            lacks,
        )

    def entries(self) -> list[ModelEntry]:
        """All usable models."""
        found = [each for each in self._all() if isinstance(each, ModelEntry)]
        names = {entry.info.name for entry in found}
        return found + [entry for name, entry in self._elsewhere().items() if name not in names]

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
                if isinstance(found, BrokenModel) and wanted in self._elsewhere():
                    break
                if self._lacks(wanted):
                    detail = "no worker that runs now has the model {name!r}; start one that has it"
                    raise UnknownModelError(message("no_worker_has", detail, name=wanted))
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
        elsewhere = self._elsewhere().get(wanted)
        if elsewhere is not None:
            return elsewhere
        wanted, names = shortened(wanted), [info.name for info in self.infos()]
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
        included = (path for path in listing.children(EMBEDDED) if (path / folders.INDEX).is_file())
        yield [Listed(path, path.name, is_folder=True) for path in included]
        for folder in (self._models_dir, *self._shared.of("models")):
            yield self._walk(folder)
        for hub in self._shared.hubs():
            yield [each for each in listing.snapshots(hub) if (each.path / folders.INDEX).is_file()]

    def _read_folder(self, listed: Listed) -> ModelEntry:
        entry = self._reader.folder(listed)
        part = next((part for part, by in entry.quantised.items() if by == folders.NEEDS_GPU), None)
        if part is not None and not self._has_gpu():
            raise UnusableError(
                f"its part {part} is quantised by {folders.NEEDS_GPU}, which needs a GPU, and "
                "there is none here"
            )
        return entry

    def _describe(self, listed: Listed) -> Callable[[Listed], ModelEntry]:
        if listed.key.startswith(UPSCALERS):
            return _refuse_upscaler
        if listed.is_folder:
            return self._read_folder
        if listed.path.suffix.lower() in PICKLES:
            return _refuse_pickle
        read = listed.path.suffix.lower() == GGUF or addons.why_not_read(listed.path) is None
        return self._reader.file if read else _refuse_ending


def _rank(listed: Listed) -> tuple[bool, bool]:
    """Folders first, pickles last: of two with one name the first has it."""
    return not listed.is_folder, listed.path.suffix.lower() in PICKLES


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
