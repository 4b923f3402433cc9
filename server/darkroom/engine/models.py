"""Loading models and keeping them in memory."""

from dataclasses import dataclass

import structlog
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from darkroom.catalog.models import ModelCatalog
from darkroom.config import EngineSettings
from darkroom.engine.families.sd import StableDiffusion
from darkroom.engine.previews import Preview

log = structlog.get_logger()

FAMILIES = {"sd": StableDiffusion}


@dataclass(frozen=True)
class LoadedModel:
    name: str
    family: StableDiffusion
    preview: Preview


def hush() -> None:
    """Keep the libraries' progress bars and advice out of our log."""
    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


class Models:
    """The loaded model. Asking for another one puts the first one away."""

    def __init__(self, catalog: ModelCatalog, settings: EngineSettings) -> None:
        hush()
        self._catalog = catalog
        self.device = pick_device(settings.device)
        self.dtype = pick_dtype(settings.dtype, self.device)
        self._loaded: LoadedModel | None = None

    def get(self, name: str | None) -> LoadedModel:
        """The model of that name, loaded; None is the default one.

        Raises:
            UnknownModelError: there is none of that name any more.
            OSError: its folder misses a part.
        """
        entry = self._catalog.find(name)
        if self._loaded is None or self._loaded.name != entry.info.name:
            self._loaded = None  # freed before the next one comes in
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            log.info("loading model", model=entry.info.name, device=str(self.device))
            family = FAMILIES[entry.info.family](entry.path, self.device, self.dtype)
            self._loaded = LoadedModel(entry.info.name, family, Preview(entry.path))
        return self._loaded


def pick_device(setting: str) -> torch.device:
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(setting)


def pick_dtype(setting: str, device: torch.device) -> torch.dtype:
    """float16 on a GPU; float32 on a CPU, where half precision is slower."""
    if setting == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, setting)
    return dtype
