"""Models in memory: loaded on demand, the least recently used unloaded when memory is needed."""

import concurrent.futures
import gc
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from darkroom.catalog.families import UNETS
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.model_entry import ModelEntry, NumberBytes
from darkroom.catalog.models import ModelCatalog, UnknownModelError
from darkroom.catalog.upscalers import UpscalerCatalog, UpscalerEntry
from darkroom.config import EngineSettings
from darkroom.engine import errors, loading, memory, warmup
from darkroom.engine.adapters import Adapters
from darkroom.engine.base import EngineMemory, ResidentModel
from darkroom.engine.costs import Costs
from darkroom.engine.denoiser import Denoiser
from darkroom.engine.embeddings import load_embeddings
from darkroom.engine.errors import Kind
from darkroom.engine.families import pipelines, stable_diffusion, upscaling
from darkroom.engine.families.base import Family
from darkroom.engine.families.unet import UNetFamily
from darkroom.engine.loading import ModelLoadError
from darkroom.engine.memory import MemoryLimits, Offload
from darkroom.engine.openvino.conversion import Cache, Conversion
from darkroom.engine.previews import Preview
from darkroom.engine.prompts import PromptEncoder
from darkroom.engine.vae import Vae
from darkroom.requests import UPSCALERS

log = structlog.get_logger()

STORAGE = {"none": None, "fp8": torch.float8_e4m3fn}  # of `engine.layerwise_casting`
CONVERTED = ("unet", "vae")  # parts that are in memory twice with OpenVINO
MAX_CODED = 4  # pictures in one VAE call: more bring little, and hold the others up


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        costs: measured calls; None where calls are not shared, so that nothing is to be weighed.
        bytes: of the weights of each of its parts.
        load_seconds: how long loading took.
    """

    name: str
    family: Family
    costs: Costs | None
    limits: MemoryLimits
    bytes: Mapping[str, int]
    load_seconds: float = 0.0

    def apply_limits(self) -> None:
        """Apply changed `limits` to the VAE and to offloading."""
        self.family.tile(self.limits.tile_side)
        self.family.offload(self.limits.offload)

    @property
    def weight_bytes(self) -> int:
        """What it takes of the memory budget."""
        return memory.accelerator_bytes(self.bytes, self.limits.offload)


class ModelManager:
    """Loads and unloads the catalog's models within the memory budget."""

    def __init__(
        self,
        catalog: ModelCatalog,
        adapters: AdapterCatalog,
        upscalers: UpscalerCatalog,
        settings: EngineSettings,
        clock: Callable[[], float],  # measures calls
        converted: Path | None = None,  # folder for models that OpenVINO computes
    ) -> None:
        diffusers_logging.disable_progress_bar()
        diffusers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        self._catalog = catalog
        self._adapters = adapters
        self._upscalers = upscalers
        self._clock = clock
        self.device = pick_device(settings.device)
        self._accelerated = self.device.type != "cpu"
        self._offload = Offload(settings.offload)
        if not self._accelerated and self._offload is not Offload.NONE:
            log.warning("engine.offload is ignored: there is no accelerator to take weights from")
            self._offload = Offload.NONE
        if self._offload is Offload.GROUP:
            for name, off in (("deep_cache_interval", 1), ("first_block_cache", 0)):
                if getattr(settings, name) > off:
                    log.warning(f"engine.{name} is ignored with engine.offload: group")
                    settings = settings.model_copy(update={name: off})
        self._settings = settings
        self._converted = self._conversions(converted)
        self._storage = STORAGE[settings.layerwise_casting]
        if self._storage is not None and self.device.type == "mps":
            log.warning("engine.layerwise_casting is ignored: this accelerator has no 8-bit floats")
            self._storage = None
        self._number_bytes = NumberBytes(
            unet=pick_dtype(settings.dtype, self.device, unet=True).itemsize,
            transformer=pick_dtype(settings.dtype, self.device, unet=False).itemsize,
            denoiser=None if self._storage is None else self._storage.itemsize,
            twice=() if self._converted is None else CONVERTED,
        )
        self._budget = memory.budget_bytes(settings.memory_budget_bytes, self.device)
        self._resident: dict[str, LoadedModel] = {}  # the most recently used last
        self._broken: dict[str, _Broken] = {}
        self._short: tuple[str, frozenset[str]] | None = None  # no memory for it beside these
        self._load: _Load | None = None
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self.gate = threading.Lock()
        # Lets go of what else holds a model, by its name.
        self.on_unload: Callable[[str], None] = lambda _name: None

    def _conversions(self, folder: Path | None) -> Cache | None:
        """Where models converted for OpenVINO are; None if torch computes all."""
        if self._settings.backend != "openvino" or folder is None:
            return None
        if self._accelerated:
            log.warning("engine.backend: openvino is ignored: it is for CPUs")
            return None
        return Cache(folder, self._settings.openvino_cache_bytes)

    # --- for the engine's thread -----------------------------------------------------------

    def loaded(self) -> dict[str, ResidentModel]:
        """The models in memory by name, the least recently used first."""
        return {
            name: ResidentModel(model.load_seconds, model.weight_bytes)
            for name, model in self._resident.items()
        }

    def memory(self) -> EngineMemory:
        """What models take of the memory. Thread-safe: the models are copied at once."""
        resident = {name: model.weight_bytes for name, model in self._resident.copy().items()}
        return EngineMemory(self._budget, self._number_bytes, resident)

    def fits(self, name: str) -> bool:
        """Whether a model is in memory, or can be loaded without unloading another one.

        So it is of a model that is unknown or broken: nothing is unloaded for it.
        """
        if name in self._resident or (self._load is not None and self._load.name == name):
            return True
        if self._is_short(name):
            return False
        try:
            wanted = self._expected_bytes(self._find(name))
        except UnknownModelError:
            return True
        return self._taken() + wanted <= self._budget or not self._resident

    def unload(self, name: str) -> bool:
        """Take a model that is not in use out of memory. Returns whether it was in it."""
        if name not in self._resident:
            return False
        self._unload(name)
        return True

    def resident(self, name: str) -> LoadedModel:
        """A model that is loaded; raises KeyError if it is not."""
        return self._resident[name]

    @property
    def loading(self) -> bool:
        """Whether a model is being loaded beside the loop."""
        return self._load is not None

    def wait(self, seconds: float) -> None:
        """Wait until the model that is being loaded is there, so many seconds at most."""
        if self._load is not None:
            concurrent.futures.wait([self._load.future], seconds)

    def get(self, name: str | None, in_use: Collection[str] = ()) -> LoadedModel | None:
        """The model of that name; None while it is loaded, or does not fit beside those in use.

        Loading begins with the first call, beside the engine's loop, one model at a time.

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
        name = entry.info.name if isinstance(entry, ModelEntry) else name
        assert name is not None
        if self._load is not None and self._load.name == name:
            self._collect(self._load, in_use)
        if name in self._resident:
            self._resident[name] = self._resident.pop(name)
            return self._resident[name]
        if self._load is not None:
            if self._load.future.done():  # nobody waits for it any more
                try:
                    self._collect(self._load, in_use)
                except Exception as error:  # of that model, and not of the one that is wanted
                    errors.survivable(error)
            return None
        self._check_not_broken(name, entry)
        if self._is_short(name):
            idle = self._idle(in_use)
            for other in idle:
                self._unload(other)
            if not idle:
                return None
        if self._make_room(self._expected_bytes(entry), in_use):
            self._begin(name, entry)
        return None

    def _find(self, name: str | None) -> ModelEntry | UpscalerEntry:
        if name is not None and name.startswith(UPSCALERS):
            return self._upscalers.find(name.removeprefix(UPSCALERS))
        return self._catalog.find(name)

    def _begin(
        self, name: str, entry: ModelEntry | UpscalerEntry, offload: Offload | None = None
    ) -> None:
        """Begin to load a model; with `offload` where it did not fit with less."""
        offload = offload or self._first_offload(self._expected_parts(entry))
        log.info("loading model", model=name, device=str(self.device), offload=str(offload))
        future = self._loader.submit(self._build, name, entry, offload)
        self._load = _Load(name, entry, offload, future)

    def _collect(self, load: "_Load", in_use: Collection[str]) -> None:
        """Take a load that has ended; if memory ran out, try again when there is more.

        Raises what it raised otherwise.
        """
        if not load.future.done():
            return
        self._load = None
        try:
            self._resident[load.name] = load.future.result()
        except Exception as error:
            if errors.survivable(error) is Kind.MEMORY:
                errors.drop_frames(error)
                idle = self._idle(in_use)
                for other in idle:
                    self._unload(other)
                self._free()  # of what the attempt left, too
                less = load.offload if idle else self._less(load)
                self._short = None
                if less is not None:
                    self._begin(load.name, load.entry, less)
                elif self._resident:
                    self._short = load.name, frozenset(self._resident)
                if less is not None or self._resident:
                    return
            else:
                errors.drop_frames(error)
                reason = getattr(error, "reason", str(error))
                why = _Broken(_stamp(load.entry.path), reason, str(error))
                self._broken = {**self._broken, load.name: why}
                self._free()
            raise

    def _is_short(self, name: str) -> bool:
        """Whether loading a model ran out of memory beside those in use, which are still there."""
        return (
            self._short is not None
            and self._short[0] == name
            and self._short[1] <= self._resident.keys()
        )

    def _less(self, load: "_Load") -> Offload | None:
        """How to load a model with less memory, when no other one has to go for it."""
        can_wait = self._accelerated and isinstance(load.entry, ModelEntry) and not self._resident
        return load.offload.next if can_wait else None

    def _check_not_broken(self, name: str, entry: ModelEntry | UpscalerEntry) -> None:
        """Raise again why a model could not be loaded, until its files change."""
        broken = self._broken.get(name)
        if broken is None:
            return
        if broken.stamp == _stamp(entry.path):
            raise ModelLoadError(name, broken.reason)
        self._broken = {other: why for other, why in self._broken.items() if other != name}

    def broken(self) -> dict[str, str]:
        """Models that could not be loaded, with the reason. Thread-safe: replaced, not changed."""
        return {name: broken.said for name, broken in self._broken.items()}

    def _dtype(self, entry: ModelEntry | UpscalerEntry) -> torch.dtype:
        unet = isinstance(entry, UpscalerEntry) or entry.spec.family in UNETS
        return pick_dtype(self._settings.dtype, self.device, unet)

    def _make_room(self, wanted: int, in_use: Collection[str]) -> bool:
        """Unload idle models, the least recently used first, until `wanted` bytes fit.

        A model larger than the budget is tried nevertheless when no other model is loaded.
        """
        taken = self._taken()
        for name in self._idle(in_use):
            if taken + wanted <= self._budget:
                break
            taken -= self._resident[name].weight_bytes
            self._unload(name)
        return taken + wanted <= self._budget or not self._resident

    def _taken(self) -> int:
        """Bytes of the models in memory, and of one that is being loaded."""
        loading = 0 if self._load is None else self._expected_bytes(self._load.entry)
        return loading + sum(model.weight_bytes for model in self._resident.values())

    def _expected_bytes(self, entry: ModelEntry | UpscalerEntry) -> int:
        parts = self._expected_parts(entry)
        return memory.accelerator_bytes(parts, self._first_offload(parts))

    def _expected_parts(self, entry: ModelEntry | UpscalerEntry) -> dict[str, int]:
        """Bytes of each part in memory, by its files."""
        if isinstance(entry, UpscalerEntry):
            return {"upscaler": entry.expected_bytes(self._dtype(entry).itemsize)}
        return entry.expected_parts(self._number_bytes)

    def _first_offload(self, parts: Mapping[str, int]) -> Offload:
        """What is offloaded from the start: what the settings say, or what does not fit."""
        if not self._accelerated or self._offload is not Offload.NONE:
            return self._offload
        return memory.offload_for(parts, self._budget)

    def _idle(self, in_use: Collection[str]) -> list[str]:
        """Models that may be unloaded, the least recently used first."""
        return [name for name in self._resident if name not in in_use]

    def _unload(self, name: str) -> None:
        del self._resident[name]
        self.on_unload(name)
        log.info("model unloaded", model=name)
        self._free()

    def _free(self) -> None:
        gc.collect()
        self.free_cache()

    def free_cache(self) -> None:
        """Give memory that no tensor uses back to the accelerator."""
        if self.device.type != "cpu":
            torch.accelerator.empty_cache()

    # --- beside the loop -------------------------------------------------------------------

    @torch.inference_mode()
    def _build(self, name: str, entry: ModelEntry | UpscalerEntry, offload: Offload) -> LoadedModel:
        """Load a model and measure its calls; runs in the loader's thread.

        Raises:
            ModelLoadError: it cannot be loaded, or its parts do not work together.
            torch.OutOfMemoryError: it does not fit.
            torch.AcceleratorError: the GPU context is lost.
        """
        began = self._clock()
        try:
            model = self._built(entry, offload)
        except OSError:
            raise
        except Exception as error:
            kind = errors.classify(error)
            if kind in (Kind.LOST_CONTEXT, Kind.MEMORY):
                raise
            log.warning("model not loaded", model=name, exc_info=error)
            raise ModelLoadError(name, errors.describe(error, kind)) from error
        seconds = self._clock() - began
        points = None if model.costs is None else model.costs.points
        log.info("model loaded", model=name, seconds=round(seconds, 2), rows_seconds=points)
        return replace(model, load_seconds=seconds)

    def _built(self, entry: ModelEntry | UpscalerEntry, offload: Offload) -> LoadedModel:
        settings = self._settings
        dtype = self._dtype(entry)
        if isinstance(entry, UpscalerEntry):
            upscaler = upscaling.load(entry, self.device, dtype)
            name = UPSCALERS + entry.info.name
            limits = MemoryLimits(MAX_CODED, settings.vae_tile_side, can_offload=False)
            size = {"upscaler": upscaler.weight_bytes}
            return LoadedModel(name, upscaler, None, limits, size)
        can_offload = self._accelerated and self._offload is Offload.NONE
        tile_side = settings.vae_tile_side
        limits = MemoryLimits(MAX_CODED, tile_side, can_offload, offload=offload)
        pipeline: Any = loading.load_pipeline(
            entry,
            self.device,
            dtype,
            self.gate,
            waits=offload.keeps,
            fuse_qkv=settings.fuse_qkv,
            storage=self._storage,
        )
        sizes = {
            name: memory.weight_bytes(part)
            for name, part in pipeline.components.items()
            if isinstance(part, torch.nn.Module)
        }
        if entry.spec.family in UNETS:
            sizes |= {name: 2 * sizes[name] for name in self._number_bytes.twice}
        family: Family
        if entry.info.family in stable_diffusion.FAMILIES:
            family = self._stable_diffusion(entry, pipeline)
        else:
            refusal = self._no_loras(entry)
            family = pipelines.build(
                entry,
                pipeline,
                self._adapters,
                refusal,
                self.device,
                settings.first_block_cache,
            )
        family.tile(tile_side)
        family.offload(offload)
        costs = warmup.warm_up(family, entry.info, self.device, self._clock)
        return LoadedModel(entry.info.name, family, costs, limits, sizes)

    def _no_loras(self, entry: ModelEntry) -> str | None:
        """Why a model takes no LoRAs; None if it takes some."""
        if self._settings.fuse_qkv and entry.spec.family in UNETS:
            # They would be put on projections that are no longer called.
            return "engine.fuse_qkv is on, which excludes LoRAs"
        takes = "loras" in entry.info.fields
        return None if takes else f"{entry.info.name} takes no LoRAs here"

    def _stable_diffusion(self, entry: ModelEntry, pipeline: Any) -> UNetFamily:
        info, settings = entry.info, self._settings
        where = (self.device, self._dtype(entry))
        with self.gate:
            tiny = loading.load_tiny_vae(entry, *where) if settings.tiny_vae else None
        words = load_embeddings(pipeline, self._adapters.embeddings.entries())
        refusal = self._no_loras(entry)
        adapters = Adapters(
            pipeline, self._adapters, self.device, learn=words.learn, refusal=refusal
        )
        conversion = None
        if self._converted is not None:
            # With DeepCache the UNet's calls are made in two parts.
            whole = settings.deep_cache_interval == 1
            conversion = Conversion(self._converted, entry, self._dtype(entry), unet=whole)
        return stable_diffusion.FAMILIES[info.family](
            stable_diffusion.pipelines(pipeline, info.family, info.tasks),
            PromptEncoder(pipeline, self.device, words.expand, words.name),
            adapters,
            Vae(pipeline.vae, *where, settings.vae_tile_side, tiny, conversion),
            Denoiser(pipeline.unet, adapters, settings.deep_cache_interval, conversion),
            Preview(info.family, entry.latent_rgb),
            *where,
            entry.notes_on,
            conversion,
        )


@dataclass(frozen=True)
class _Load:
    """A load under way."""

    name: str
    entry: ModelEntry | UpscalerEntry
    offload: Offload
    future: "concurrent.futures.Future[LoadedModel]"


@dataclass(frozen=True)
class _Broken:
    """A model that could not be loaded. The exception is not kept: its frames hold the model.

    Attributes:
        stamp: of its files then.
        reason: why.
        said: the same with the model's name.
    """

    stamp: tuple[tuple[str, int, int], ...]
    reason: str
    said: str


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when the files of a model do: their names, sizes and times."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    stats = [(file.name, file.stat()) for file in files]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def pick_device(setting: str) -> torch.device:
    """`auto` is the machine's accelerator, whatever its make, else the CPU. ROCm is `cuda`."""
    if setting == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if found is None else found
    return torch.device(setting)


def pick_dtype(setting: str, device: torch.device, unet: bool) -> torch.dtype:
    """The dtype of a model; `auto` is float32 on a CPU, where half precision is slower.

    On an accelerator UNets are in float16. Transformers are in bfloat16: in float16 some overflow
    (Z-Image gives black pictures, https://github.com/Tongyi-MAI/Z-Image/issues/14).
    """
    if setting != "auto":
        dtype: torch.dtype = getattr(torch, setting)
        return dtype
    if device.type == "cpu":
        return torch.float32
    return torch.float16 if unet else torch.bfloat16
