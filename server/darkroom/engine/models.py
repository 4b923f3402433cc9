"""Models in memory: loaded on demand, the least recently used unloaded when memory is needed."""

import gc
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import structlog
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog, ModelEntry, UnknownModelError
from darkroom.catalog.upscalers import UpscalerCatalog, UpscalerEntry
from darkroom.config import EngineSettings
from darkroom.engine import loading, memory, warmup
from darkroom.engine.adapters import Adapters
from darkroom.engine.base import ResidentModel
from darkroom.engine.costs import Costs
from darkroom.engine.denoiser import Denoiser
from darkroom.engine.embeddings import load_embeddings
from darkroom.engine.families import stable_diffusion, upscaling
from darkroom.engine.families.unbatched import UnbatchedFamily
from darkroom.engine.families.unet import UNetFamily
from darkroom.engine.families.upscaling import Upscaler
from darkroom.engine.memory import MemoryLimits
from darkroom.engine.previews import Preview
from darkroom.engine.prompts import PromptEncoder
from darkroom.engine.vae import Vae
from darkroom.requests import UPSCALERS

log = structlog.get_logger()

MAX_CODED = 4  # pictures in one VAE call: more bring little, and hold the others up


@dataclass(frozen=True)
class UnbatchedModel:
    """A loaded model whose calls are not batched: a pipeline of diffusers, or an upscaler."""

    family: UnbatchedFamily | Upscaler
    weight_bytes: int


@dataclass(frozen=True)
class SteppedModel:
    """A loaded model whose samples are stepped together."""

    name: str
    family: UNetFamily
    adapters: Adapters
    preview: Preview
    costs: Costs
    limits: MemoryLimits
    weight_bytes: int

    def apply_limits(self) -> None:
        """Apply changed `limits` to the VAE and to offloading."""
        self.family.vae.tile(self.limits.tile_side)
        if self.limits.offload and not self.family.offloaded:
            self.family.offload("model")


LoadedModel = UnbatchedModel | SteppedModel


class Models:
    """Loads and unloads the catalog's models within the memory budget."""

    def __init__(
        self,
        catalog: ModelCatalog,
        adapters: AdapterCatalog,
        upscalers: UpscalerCatalog,
        settings: EngineSettings,
        clock: Callable[[], float],  # measures calls
    ) -> None:
        diffusers_logging.disable_progress_bar()
        diffusers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        self._catalog = catalog
        self._adapters = adapters
        self._upscalers = upscalers
        self._settings = settings
        self._clock = clock
        self.device = pick_device(settings.device)
        self.dtype = pick_dtype(settings.dtype, self.device)
        self._budget = memory.budget_bytes(settings.memory_budget_bytes, self.device)
        self._resident: dict[str, LoadedModel] = {}  # the most recently used last
        self._load_seconds: dict[str, float] = {}  # of resident models

    def loaded(self) -> dict[str, ResidentModel]:
        """The models in memory by name, the least recently used first."""
        return {
            name: ResidentModel(self._load_seconds[name], model.weight_bytes)
            for name, model in self._resident.items()
        }

    def fits(self, name: str) -> bool:
        """Whether a model is in memory, or can be loaded without unloading another one.

        So it is of a model that is unknown or broken: nothing is unloaded for it.
        """
        if name in self._resident:
            return True
        try:
            entry = self._find(name)
        except UnknownModelError:
            return True
        taken = sum(model.weight_bytes for model in self._resident.values())
        wanted = entry.expected_bytes(self.dtype.itemsize)
        return taken + wanted <= self._budget or not self._resident

    def resident(self, name: str) -> LoadedModel:
        """A model that is loaded; raises KeyError if it is not."""
        return self._resident[name]

    def get(self, name: str | None, in_use: Collection[str] = ()) -> LoadedModel | None:
        """The model of that name, loaded if needed; None if it does not fit beside those in use.

        Args:
            name: in the catalog, or behind `UPSCALERS` in that of the upscalers; None is the
                default model.

        Raises:
            UnknownModelError: no model or upscaler has that name, or its files are broken.
            OSError: the files cannot be loaded, with the reason.
            torch.OutOfMemoryError: it does not fit, even after all idle models were unloaded.
            torch.AcceleratorError: the GPU context is lost.
        """
        entry = self._find(name)
        if name is None or isinstance(entry, ModelEntry):
            name = entry.info.name
        if name not in self._resident:
            if not self._make_room(entry.expected_bytes(self.dtype.itemsize), in_use):
                return None
            began = self._clock()
            self._resident[name] = self._load(name, entry, in_use)
            self._load_seconds[name] = self._clock() - began
        self._resident[name] = self._resident.pop(name)
        return self._resident[name]

    def unload(self, name: str) -> bool:
        """Take a model that is not in use out of memory. Returns whether it was in it."""
        if name not in self._resident:
            return False
        self._unload(name)
        return True

    def _find(self, name: str | None) -> ModelEntry | UpscalerEntry:
        if name is not None and name.startswith(UPSCALERS):
            return self._upscalers.find(name.removeprefix(UPSCALERS))
        return self._catalog.find(name)

    def _make_room(self, wanted: int, in_use: Collection[str]) -> bool:
        """Unload idle models, the least recently used first, until `wanted` bytes fit.

        A model larger than the budget is tried nevertheless when no other model is loaded.
        """
        taken = sum(model.weight_bytes for model in self._resident.values())
        for name in self._idle(in_use):
            if taken + wanted <= self._budget:
                break
            taken -= self._resident[name].weight_bytes
            self._unload(name)
        return taken + wanted <= self._budget or not self._resident

    def _load(
        self, name: str, entry: ModelEntry | UpscalerEntry, in_use: Collection[str]
    ) -> LoadedModel:
        log.info("loading model", model=name, device=str(self.device))
        try:
            return self._build(entry)
        except torch.OutOfMemoryError:
            for idle in self._idle(in_use):
                self._unload(idle)
            self._free()  # of what the attempt left, too
            return self._build(entry)

    def _build(self, entry: ModelEntry | UpscalerEntry) -> LoadedModel:
        if isinstance(entry, UpscalerEntry):
            upscaler = upscaling.load(entry, self.device, self.dtype)
            return UnbatchedModel(upscaler, upscaler.weight_bytes)
        pipeline: Any = loading.load_pipeline(entry, self.device, self.dtype)
        parts = pipeline.components.values()
        weight_bytes = memory.weight_bytes(*(p for p in parts if isinstance(p, torch.nn.Module)))
        if entry.info.family in stable_diffusion.FAMILIES:
            return self._build_stepped(entry, pipeline, weight_bytes)
        return UnbatchedModel(UnbatchedFamily(pipeline, entry.info.tasks), weight_bytes)

    def _build_stepped(self, entry: ModelEntry, pipeline: Any, weight_bytes: int) -> SteppedModel:
        info, settings, where = entry.info, self._settings, (self.device, self.dtype)
        tiny = loading.load_tiny_vae(entry, *where) if settings.tiny_vae else None
        vae = Vae(pipeline.vae, *where, settings.vae_tile_side, tiny)
        adapters = Adapters(pipeline, self._adapters)
        words = load_embeddings(pipeline, self._adapters.embeddings.entries())
        family = stable_diffusion.FAMILIES[info.family](
            stable_diffusion.pipelines(pipeline, info.family, info.tasks),
            PromptEncoder(pipeline, self.device, words.expand),
            vae,
            Denoiser(pipeline.unet, settings.deep_cache_interval),
            *where,
        )
        if settings.fuse_qkv:
            pipeline.unet.fuse_qkv_projections()
        if settings.offload != "none":
            family.offload(settings.offload)
        costs = warmup.warm_up(family, info, self._clock)
        log.info("model loaded", model=info.name, rows_seconds=costs.points)
        can_offload = self.device.type == "cuda" and settings.offload == "none"
        limits = MemoryLimits(MAX_CODED, settings.vae_tile_side, can_offload)
        preview = Preview(info.family, entry.latent_rgb)
        return SteppedModel(info.name, family, adapters, preview, costs, limits, weight_bytes)

    def _idle(self, in_use: Collection[str]) -> list[str]:
        """Models that may be unloaded, the least recently used first."""
        return [name for name in self._resident if name not in in_use]

    def _unload(self, name: str) -> None:
        del self._resident[name]
        log.info("model unloaded", model=name)
        self._free()

    def _free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def pick_device(setting: str) -> torch.device:
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(setting)


def pick_dtype(setting: str, device: torch.device) -> torch.dtype:
    """float16 on a GPU; float32 on a CPU, where half precision is slower."""
    if setting == "auto":
        setting = "float16" if device.type == "cuda" else "float32"
    dtype: torch.dtype = getattr(torch, setting)
    return dtype
