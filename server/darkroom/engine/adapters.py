"""LoRAs over one loaded pipeline: which are active may change from one UNet call to the next.

The base weights are never touched: peft's layers stand in front of the base layers and add to what
they give. With no LoRA active they add nothing, so the base model's bytes are its own.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch
from peft.tuners.lora import LoraLayer

from darkroom.catalog.loras import AdapterCatalog, UnknownLoraError
from darkroom.engine import lora_file, lora_layers
from darkroom.errors import DarkroomError
from darkroom.requests import Lora

log = structlog.get_logger()

BUDGET_BYTES = 2 * 2**30
Stamp = tuple[int, int]  # a file's time in nanoseconds and its size


class AdapterError(DarkroomError, OSError):
    """A LoRA that cannot be used with the loaded model; the message says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"LoRA {name!r}: {reason}")
        self.name = name


@dataclass(frozen=True)
class _Loaded:
    """A LoRA in memory."""

    key: str  # peft's name of it, never used again; its own name may hold what peft cannot
    path: Path
    stamp: Stamp  # of the file when it was read
    bytes: int


class Adapters:
    """The LoRAs of one loaded pipeline. Used from one thread.

    Layers may be replaced by subclasses of `nn.Linear` and `nn.Conv2d` that hide their weight, but
    attention projections must not be fused, and nothing may be replaced after the first LoRA came.

    Args:
        pipeline: has a `unet`, and a `text_encoder` or two; on its device, in its dtype.
        changed: is called when a LoRA's file has become another one, so that what was encoded with
            it is out of date.
        budget_bytes: that LoRAs may take up in memory. Beyond it the least recently used ones are
            unloaded, but never those that are asked for.
    """

    def __init__(
        self,
        pipeline: Any,
        catalog: AdapterCatalog,
        changed: Callable[[], None] = lambda: None,
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        parts = {part: getattr(pipeline, part, None) for part in lora_file.PARTS}
        self._parts: dict[str, Any] = {k: v for k, v in parts.items() if v is not None}
        self._catalog = catalog
        self._changed = changed
        self._budget_bytes = budget_bytes
        self._loaded: dict[str, _Loaded] = {}  # least recently used first
        self._keys = (f"darkroom{number}" for number in itertools.count())
        self._layers: list[LoraLayer] = []
        self._active: list[tuple[str, float]] = []

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the LoRAs in memory, the least recently used first."""
        return tuple(self._loaded)

    def activate(self, loras: Sequence[Lora]) -> None:
        """Make exactly these LoRAs work, with these scales. Cheap when nothing changes.

        A LoRA is loaded when it is first asked for, and again when its file was changed; one whose
        file went away stays as it is. After an error the base model is active, by itself.

        Raises:
            AdapterError: one is not there, is broken, or is for another model.
            torch.OutOfMemoryError: one does not fit into memory.
        """
        # Sums of floats depend on their order; a set must not.
        wanted = sorted((lora for lora in loras if lora.scale), key=lambda lora: lora.name)
        try:
            names = {lora.name for lora in wanted}
            active = [(self._get(lora.name, names).key, lora.scale) for lora in wanted]
        except BaseException:
            self._switch([])
            raise
        if active != self._active:
            self._switch(active)

    def _switch(self, active: list[tuple[str, float]]) -> None:
        keys = [key for key, _ in active]
        for layer in self._layers:
            layer.set_adapter(keys, inference_mode=True)
            for key, scale in active:
                layer.set_scale(key, scale)
        self._active = active

    def _get(self, name: str, wanted: set[str]) -> _Loaded:
        held = self._loaded.get(name)
        if held is not None:
            if _stamp(held.path) in (held.stamp, None):
                self._loaded[name] = self._loaded.pop(name)
                return held
            self._forget(name)
            self._changed()
        try:
            path = self._catalog.loras.find(name).path
        except UnknownLoraError as error:
            raise AdapterError(name, str(error)) from None
        stamp = _stamp(path)
        if stamp is None:
            raise AdapterError(name, "its file went away")
        # Tensors made in inference mode could not be used outside of it.
        with torch.inference_mode(False), torch.no_grad():
            self._loaded[name] = self._load(name, path, stamp, wanted)
        return self._loaded[name]

    def _load(self, name: str, path: Path, stamp: Stamp, wanted: set[str]) -> _Loaded:
        """Check a LoRA against the model, then add it to the layers."""
        try:
            updates = lora_file.read(path, self._parts["unet"].config)
            fitted = lora_layers.fit(self._parts, updates)
        except ValueError as error:
            raise AdapterError(name, str(error)) from error
        size = sum(lora_layers.size_bytes(self._parts[part], fitted[part]) for part in fitted)
        for other in [other for other in self._loaded if other not in wanted]:
            if sum(held.bytes for held in self._loaded.values()) + size <= self._budget_bytes:
                break
            self._forget(other)
        key = next(self._keys)
        log.info("loading LoRA", lora=name, megabytes=round(size / 2**20, 1))
        try:
            for part, layers in fitted.items():
                lora_layers.put(self._parts[part], key, layers)
        except BaseException:
            self._remove(key)
            raise
        self._collect_layers()
        self._switch([])  # peft makes what comes in active
        return _Loaded(key, path, stamp, size)

    def _forget(self, name: str) -> None:
        log.info("letting go of LoRA", lora=name)
        self._remove(self._loaded.pop(name).key)

    def _remove(self, key: str) -> None:
        """Take one LoRA off, and peft's layers where it was the last."""
        self._collect_layers()
        self._switch([])  # peft makes another one active when an active one goes
        for model in self._parts.values():
            lora_layers.take_off(model, key)
        self._collect_layers()

    def _collect_layers(self) -> None:
        modules = itertools.chain(*(model.modules() for model in self._parts.values()))
        self._layers = [module for module in modules if isinstance(module, LoraLayer)]


def _stamp(path: Path) -> Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
