"""A model on this server: what people are told of it, its files, and how to load them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from darkroom.catalog import families, folders
from darkroom.catalog.folders import Variant
from darkroom.catalog.model_spec import ModelSpec
from darkroom.catalog.single_files import Part
from darkroom.catalog.weight_files import UnusableError, count_numbers, read_json
from darkroom.errors import message
from darkroom.responses import ModelInfo

TRANSFORMER = "transformer"  # the part that can be quantised
Quantized = Literal["int8", "fp8"]
NOWHERE = Path("/nonexistent")  # of files on another machine
WORD = re.compile(r"[^\W\d_]+")
UNKNOWN_WORDS = message(
    "unknown_words",
    "this demo model knows no word of the prompt; its examples are in GET /models, and "
    "docs/models.md says how to add a real model",
)


@dataclass(frozen=True)
class NumberBytes:
    """Bytes that each number of a model's weights takes in a worker's memory.

    Attributes:
        unet: of models with a UNet of Stable Diffusion.
        transformer: of the others.
        denoiser: of the network that is called at every step, if it is kept in less.
        twice: parts of models with a UNet that are there twice, for torch and for OpenVINO.
    """

    unet: int
    transformer: int
    denoiser: int | None = None
    twice: Sequence[str] = ()


@dataclass(frozen=True)
class ModelEntry:
    """A model, its files and how to load it.

    Attributes:
        config: the folder of JSON that describes it; `path` itself if that is a folder.
        spec: from its configuration, without the notes.
        layout: a `file` is loaded whole by its pipeline; of `parts` each is loaded by itself.
        variant: of the weights of a folder, such as `fp16`; None for the plain ones.
        quantised: the parts of a folder whose weights are quantised in its files, and by what.
        quantize: what its transformer is quantised to when it is loaded; None for as it is.
        parts: where the weights of each part are, of a model of `parts`.
        scheduler: overrides settings of the model's own scheduler.
        scaled: whether the UNet's weights in its file have scales.
        in_file: how many numbers the parts in its file have that are loaded.
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
    quantised: Mapping[str, str] = field(default_factory=dict)
    quantize: Quantized | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    scaled: bool = False
    in_file: Mapping[str, int] = field(default_factory=dict)
    vae: Path | None = None
    tiny_vae: Path | None = None
    latent_rgb: tuple[tuple[float, float, float], ...] | None = None
    words: frozenset[str] = frozenset()
    passed_over: tuple[str, ...] = ()
    picture: Path | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether its files are on another machine, where a worker has it."""
        return self.path.is_relative_to(NOWHERE)

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
            found = dict(self.in_file)
        if self.vae is not None:
            files = self.vae.glob("*.safetensors") if self.vae.is_dir() else [self.vae]
            found["vae"] = found.get("vae", 0) + sum(map(count_numbers, files))
        return found

    def expected_parts(self, number_bytes: NumberBytes) -> dict[str, int]:
        """Bytes of each part in memory; raises as `numbers`."""
        twice = number_bytes.twice if self.spec.family in families.UNETS else ()
        return {
            part: 2 * size if part in twice else size
            for part, size in self._expected_once(number_bytes).items()
        }

    def _expected_once(self, number_bytes: NumberBytes) -> dict[str, int]:
        unet = self.spec.family in families.UNETS
        size = number_bytes.unet if unet else number_bytes.transformer
        denoiser = number_bytes.denoiser or size if self.quantize is None else 1
        kept: dict[str, int] = {}  # as on the disk
        if self.layout == "parts":
            return {
                name: part.expected_bytes(denoiser, packed=True)
                if name in folders.DENOISERS
                else part.expected_bytes(size, packed=False)
                for name, part in self.parts.items()
            }
        if self.layout == "folder":
            files = self._files
            for part in self.quantised:
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
