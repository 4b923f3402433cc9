"""Which models are on this box, read from their folders' JSON without loading anything.

A model is a folder in the diffusers format: the embedded tintype, and every folder under the
models directory. A `darkroom.json` beside `model_index.json` may set defaults and limits.
"""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.schemas import ModelDefaults, ModelInfo, ModelLimits, Task

EMBEDDED = Path(__file__).parent.parent / "models"
NOTES = "darkroom.json"

# Pipelines whose components our own sampling loop drives.
FAMILIES = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionImg2ImgPipeline": "sd",
    "StableDiffusionInpaintPipeline": "sd",
}


class UnknownModelError(ValueError):
    """No model of that name is on this box."""


@dataclass(frozen=True)
class ModelEntry:
    """A model and where it lies."""

    info: ModelInfo
    folder: Path


class ModelCatalog:
    """The models of this box by name.

    Args:
        models_dir: the owner's folder of models; it need not exist.
        default: name of the model that answers requests that name none.
    """

    def __init__(self, models_dir: Path, default: str) -> None:
        self._models_dir = models_dir
        self._default = default

    def entries(self) -> list[ModelEntry]:
        """Read afresh, so that a model dropped into the folder is there at once."""
        return [read(folder, self._default) for folder in self._folders()]

    def infos(self) -> tuple[ModelInfo, ...]:
        return tuple(entry.info for entry in self.entries())

    def find(self, name: str | None) -> ModelEntry:
        """Look up a model; None is the default one.

        Raises:
            UnknownModelError: says what there is.
        """
        wanted = name or self._default
        for folder in self._folders():  # names are compared with folders, never joined to a path
            if folder.name == wanted:
                return read(folder, self._default)
        names = [folder.name for folder in self._folders()]
        close = difflib.get_close_matches(wanted, names, 1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else f"; there is {', '.join(names)}"
        raise UnknownModelError(f"there is no model {wanted!r}{hint} (see GET /models)")

    def _folders(self) -> Iterator[Path]:
        for root in (EMBEDDED, self._models_dir):
            if root.is_dir():
                for folder in sorted(root.iterdir()):
                    if _readable(folder):
                        yield folder


def _readable(folder: Path) -> bool:
    try:
        return _json(folder / "model_index.json").get("_class_name") in FAMILIES
    except (OSError, ValueError):
        return False


def _json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return value


def read(folder: Path, default: str) -> ModelEntry:
    """Describe one model folder."""
    index = _json(folder / "model_index.json")
    unet = _json(folder / "unet" / "config.json")
    vae = _json(folder / "vae" / "config.json")
    text_encoder = _json(folder / "text_encoder" / "config.json")
    notes = _json(folder / NOTES) if (folder / NOTES).is_file() else {}

    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    native = int(unet["sample_size"]) * factor
    defaults = {
        "width": native,
        "height": native,
        "num_inference_steps": 25,
        "guidance_scale": 7.5,
        "scheduler": "dpmpp_2m",
        **notes.get("defaults", {}),
    }
    limits = {
        "min_side": max(64, native // 4),
        "max_side": native * 4,
        "max_pixels": 4 * native * native,
        "multiple_of": factor,
        "max_clip_skip": int(text_encoder["num_hidden_layers"]) - 1,
        **notes.get("limits", {}),
    }
    return ModelEntry(
        info=ModelInfo(
            name=folder.name,
            family=FAMILIES[index["_class_name"]],
            description=notes.get("description", ""),
            tasks=tuple(Task),
            defaults=ModelDefaults(**defaults),
            limits=ModelLimits(**limits),
            default=folder.name == default,
        ),
        folder=folder,
    )
