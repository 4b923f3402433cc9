"""LoRAs over one loaded pipeline: each row of a call has its own.

The base weights are never touched. A hook on each layer that a LoRA changes adds to what the layer
gives, in the rows of those who asked for it; a row without LoRAs stays as it is. peft's layers,
which do the same in calls of one adapter a row, take neither several in a row nor a scale for each.
"""

import itertools
import weakref
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch

from darkroom.catalog.loras import AdapterCatalog, LoraEntry, UnknownLoraError
from darkroom.engine import embeddings, lora_file, lora_layers
from darkroom.engine.embeddings import Expansions, Vectors
from darkroom.engine.layer_weights import without_bias
from darkroom.engine.loading import DENOISERS
from darkroom.engine.lora_layers import Layer, Share
from darkroom.engine.weight_changes import At, Change
from darkroom.errors import DarkroomError, message, text_of
from darkroom.requests import Lora

log = structlog.get_logger()

BUDGET_BYTES = 2 * 2**30
Stamp = tuple[int, int]  # a file's time in nanoseconds and its size


class AdapterError(DarkroomError, OSError):
    """A LoRA that cannot be used with the loaded model; the message says why."""

    def __init__(self, name: str, reason: str) -> None:
        said = message("lora_load", "LoRA {name!r}: {reason}", name=name, reason=reason)
        super().__init__(said.told_by(reason))
        self.name = name


@dataclass(frozen=True, eq=False)
class LoadedLora:
    """A LoRA in memory.

    Attributes:
        id: never used again, also when the file is read again.
        stamp: of the file when it was read.
        of_text: the layers of text encoders among them.
        apart: whether it changes a layer whose inputs have not one entry a row.
        words: of the embeddings that are bundled with it.
    """

    id: int
    path: Path
    stamp: Stamp
    layers: Mapping[Layer, Change]
    of_text: frozenset[Layer]
    bytes: int
    apart: bool
    words: Expansions


@dataclass(frozen=True, eq=False)
class LoraSet:
    """The LoRAs of one job, with their scales. They stay in memory as long as it is used.

    Attributes:
        scales: of the denoiser.
        text_scales: of the text encoders, of the same LoRAs.
    """

    scales: Mapping[LoadedLora, float]
    text_scales: Mapping[LoadedLora, float]

    @property
    def key(self) -> tuple[tuple[int, float], ...]:
        """Equal for sets that have the same effect on a denoiser; keeps nothing in memory."""
        return tuple((lora.id, scale) for lora, scale in self.scales.items())

    @property
    def text_key(self) -> Hashable:
        """As `key`, of the effect on text encoders."""
        return tuple(
            (lora.id, scale)
            for lora, scale in self.text_scales.items()
            if lora.of_text or lora.words
        )

    @property
    def words(self) -> Expansions:
        """Those that its LoRAs bring along; of two with one name, the first LoRA's."""
        found: dict[str, Sequence[str]] = {}
        for lora in self.scales:
            found = {**lora.words, **found}
        return found

    @property
    def apart(self) -> Hashable:
        """None if rows with other LoRAs may be in a call with its rows; else its key."""
        return self.key if any(lora.apart for lora in self.scales) else None


NONE = LoraSet({}, {})


class Adapters:
    """The LoRAs of one loaded pipeline. Used from one thread.

    Layers may be replaced by subclasses of `nn.Linear` and `nn.Conv2d` that hide their weight, but
    attention projections must not be fused, and nothing may be replaced after the first LoRA came.

    Args:
        pipeline: has a `unet` or a `transformer`, and text encoders.
        device: of the computation, also while weights are offloaded.
        learn: gives embeddings that are bundled with LoRAs words, see `Embeddings.learn`.
        refusal: why it takes none; None if it takes some.
        flat: beginnings of the names of layers whose inputs have not one entry a row.
        budget_bytes: that LoRAs may take up in memory. Beyond it the least recently used ones are
            unloaded, but never those that are asked for, or that a `LoraSet` holds.
    """

    def __init__(
        self,
        pipeline: Any,
        catalog: AdapterCatalog,
        device: torch.device,
        *,
        learn: Callable[[Hashable, Mapping[str, Vectors]], Expansions] | None = None,
        refusal: str | None = None,
        flat: tuple[str, ...] = (),
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        parts = {part: getattr(pipeline, part, None) for part in lora_file.PARTS}
        self._parts: dict[str, Any] = {k: v for k, v in parts.items() if v is not None}
        self._pipeline = type(pipeline)
        self._catalog = catalog
        self._device = device
        self._learn = learn
        self._refusal = refusal
        self._flat = flat
        self._budget_bytes = budget_bytes
        self._ids = itertools.count()
        self._loaded: dict[str, LoadedLora] = {}  # least recently used first
        self._alive: weakref.WeakSet[LoadedLora] = weakref.WeakSet()  # also those let go of
        self._sets: weakref.WeakSet[LoraSet] = weakref.WeakSet()
        self._hooks: dict[Layer, Any] = {}
        # Of the call that is made now, of its denoiser and of its text encoders.
        self._shares: dict[LoadedLora, Share] = {}
        self._text_shares: dict[LoadedLora, Share] = {}

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the LoRAs that are kept in memory, the least recently used first."""
        return tuple(self._loaded)

    @property
    def bytes(self) -> int:
        """What LoRAs take up in memory, also those that are kept only for jobs in flight."""
        return sum(lora.bytes for lora in self._alive)

    # --- loading ---------------------------------------------------------------------------

    def find(self, asked: Sequence[Lora]) -> LoraSet:
        """These LoRAs, with these scales, as their files are now.

        A LoRA is loaded when it is first asked for, and again when its file was changed; one whose
        file went away stays as it is.

        Raises:
            AdapterError: one is not there, is broken, or is for another model.
            ValueError: the model takes none.
            torch.OutOfMemoryError: one does not fit into memory.
        """
        # Sums of floats depend on their order; a set must not.
        effective = (lora for lora in asked if lora.scale or lora.scale_of_text)
        wanted = sorted(effective, key=lambda lora: lora.name)
        if not wanted:
            return NONE
        if self._refusal is not None:
            raise ValueError(self._refusal)
        names = {lora.name for lora in wanted}
        loaded = {lora.name: self._get(lora.name, names) for lora in wanted}
        made = LoraSet(
            {loaded[lora.name]: lora.scale for lora in wanted},
            {loaded[lora.name]: lora.scale_of_text for lora in wanted},
        )
        self._sets.add(made)
        return made

    def admits(self, asked: Sequence[Lora]) -> bool:
        """Whether these LoRAs fit in memory beside those of the jobs in flight."""
        used = self._used()
        wanted = 0
        for lora in asked if self._refusal is None else ():
            held = self._loaded.get(lora.name)
            if held is None:
                wanted += self._expected_bytes(lora.name)
            elif held not in used:
                wanted += held.bytes
        fits = sum(lora.bytes for lora in used) + wanted <= self._budget_bytes
        return fits or not used or not wanted

    def _expected_bytes(self, name: str) -> int:
        """0 where `find` will say why it cannot be loaded."""
        try:
            entry: LoraEntry = self._catalog.loras.find(name)
            number_bytes = max(model.dtype.itemsize for model in self._parts.values())
            return entry.expected_bytes(number_bytes)
        except ValueError:
            return 0

    def _used(self) -> set[LoadedLora]:
        return {lora for loras in self._sets for lora in loras.scales}

    def _get(self, name: str, wanted: Collection[str]) -> LoadedLora:
        held = self._loaded.get(name)
        if held is not None:
            if _stamp(held.path) in (held.stamp, None):
                self._loaded[name] = self._loaded.pop(name)
                return held
            self._forget(name)
        try:
            path = self._catalog.loras.find(name).path
        except UnknownLoraError as error:
            raise AdapterError(name, text_of(error)) from None
        stamp = _stamp(path)
        if stamp is None:
            raise AdapterError(name, message("lora_gone", "its file went away", name=name))
        self._make_room(self._expected_bytes(name), wanted)
        # Tensors made in inference mode could not be used outside of it.
        with torch.inference_mode(False), torch.no_grad():
            loaded = self._load(name, path, stamp)
        self._loaded[name] = loaded
        self._alive.add(loaded)
        return loaded

    def _load(self, name: str, path: Path, stamp: Stamp) -> LoadedLora:
        """Read a LoRA and check it against the model."""
        try:
            updates = lora_file.read(path, self._pipeline, self._parts)
            fitted = lora_layers.fit(self._parts, updates, self._device)
            words = self._learn((path, stamp), embeddings.bundled(path)) if self._learn else {}
        except ValueError as error:
            raise AdapterError(name, str(error)) from error
        layers = {layer: change for part in fitted.values() for layer, change in part.items()}
        size = sum(tensor.nbytes for change in layers.values() for tensor in change.tensors())
        log.info("LoRA loaded", lora=name, megabytes=round(size / 2**20, 1))
        return LoadedLora(
            id=next(self._ids),
            path=path,
            stamp=stamp,
            layers=layers,
            of_text=frozenset(
                layer for part in fitted if part not in DENOISERS for layer in fitted[part]
            ),
            bytes=size,
            apart=any(
                layer.startswith(self._flat)
                for part in DENOISERS
                for layer in updates.get(part, ())
            ),
            words=words,
        )

    def _make_room(self, size: int, wanted: Collection[str]) -> None:
        """Let go of the least recently used ones that nobody needs now."""
        used = self._used()
        for other in [name for name in self._loaded if name not in wanted]:
            if self.bytes + size <= self._budget_bytes:
                break
            if self._loaded[other] not in used:
                self._forget(other)

    def _forget(self, name: str) -> None:
        log.info("letting go of LoRA", lora=name)
        del self._loaded[name]
        kept = {layer for lora in self._loaded.values() for layer in lora.layers}
        for layer in self._hooks.keys() - kept:  # those in use come back with their next call
            self._hooks.pop(layer).remove()

    # --- calls -----------------------------------------------------------------------------

    @contextmanager
    def applied(self, rows: Sequence[LoraSet]) -> Iterator[None]:
        """Apply to each row of the calls made inside its own LoRAs; of one set, to all rows."""
        if rows:
            self._shares = lora_layers.shares([loras.scales for loras in rows])
            self._text_shares = lora_layers.shares([loras.text_scales for loras in rows])
        for lora in self._shares:
            for layer in lora.layers.keys() - self._hooks.keys():
                self._hooks[layer] = layer.register_forward_hook(self._add)
        try:
            yield
        finally:
            self._shares, self._text_shares = {}, {}

    def _add(self, layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        here = [(lora, lora.layers[layer]) for lora in self._shares if layer in lora.layers]
        based = any(change.needs_base for _, change in here)
        at = At(layer, inputs[0], without_bias(layer, output) if based else None)
        for lora, change in here:
            share = (self._text_shares if layer in lora.of_text else self._shares)[lora]
            share.add(change, at, output)


def _stamp(path: Path) -> Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
