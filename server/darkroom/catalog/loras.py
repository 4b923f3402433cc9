"""The LoRAs and textual-inversion embeddings on this server, described by their files' headers.

Only safetensors are read; other weights in the folders are listed with the reason why they cannot
be used.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from darkroom.catalog import families, few_steps, lora_kinds, lora_tensors, sidecars
from darkroom.catalog.addons import NO_FOLDERS, AddonEntry, AddonFolder
from darkroom.catalog.listing import Listed, SharedFolders
from darkroom.catalog.lora_kinds import UNET
from darkroom.catalog.lora_tensors import Layer, group_by_layer, unknown
from darkroom.catalog.model_entry import ModelEntry
from darkroom.catalog.weight_files import (
    Header,
    UnusableAddonError,
)
from darkroom.config import Settings
from darkroom.errors import DarkroomError, message
from darkroom.responses import EmbeddingInfo, LoraDefaults, LoraInfo

MAX_TRIGGER_WORDS = 8

# Width of the text embeddings that the UNet's cross attention reads → family, and its name.
FAMILIES = {
    768: ("sd1", "Stable Diffusion 1.x"),
    1024: ("sd2", "Stable Diffusion 2.x"),
    2048: ("sdxl", "Stable Diffusion XL"),
}


class UnknownLoraError(DarkroomError, ValueError):
    """There is no LoRA of that name on this server, or its file cannot be used."""


@dataclass(frozen=True)
class LoraEntry(AddonEntry):
    """A LoRA.

    Attributes:
        kinds: of network that it may be for, see `lora_kinds`.
        width: of the transformer that it was trained for; None if its layers do not show it.
        bundled: names of the embeddings in its file, each with the width of its text.
        numbers: that its layers keep in memory.
        picture: a file that shows what it does; its own file if that holds one.
    """

    info: LoraInfo
    kinds: tuple[str, ...]
    width: int | None
    bundled: Mapping[str, int] = field(default_factory=dict)
    numbers: int = 0
    picture: Path | None = None

    def expected_bytes(self, number_bytes: int) -> int:
        return number_bytes * self.numbers

    @property
    def aliases(self) -> tuple[str, ...]:
        return self.info.aliases


@dataclass(frozen=True)
class EmbeddingEntry(AddonEntry):
    """A textual inversion.

    Attributes:
        widths: of the text encoder that it was trained for; of both for SDXL.
    """

    info: EmbeddingInfo
    widths: tuple[int, ...]


class AdapterCatalog:
    """The LoRAs and embeddings on this server, by name."""

    def __init__(
        self, loras_dir: Path, embeddings_dir: Path, shared: SharedFolders = NO_FOLDERS
    ) -> None:
        self.loras = AddonFolder(loras_dir, _describe_lora, "LoRA", UnknownLoraError, shared)
        self.embeddings = AddonFolder(
            embeddings_dir, _describe_embedding, "embedding", shared=shared
        )

    @classmethod
    def of(cls, settings: Settings) -> "AdapterCatalog":
        """The LoRAs and embeddings that the settings name."""
        shared = SharedFolders(settings.models.paths)
        return cls(settings.loras_dir, settings.embeddings_dir, shared)


def _describe_lora(listed: Listed, header: Header) -> LoraEntry:
    layers = group_by_layer(header.shapes)
    try:
        kinds = lora_kinds.kinds(layers)
    except ValueError as error:
        raise UnusableAddonError(unknown(str(error))) from None
    for name, layer in layers.items():
        if "LoRA" in layer.kinds:
            down, up = header.shapes[layer.keys["down"]], header.shapes[layer.keys["up"]]
            if len(down) not in (2, 4) or len(down) != len(up) or down[0] != up[1]:
                raise UnusableAddonError(f"is damaged: the halves of {name} do not fit together")
    text_dim, width, kind = None, None, kinds[0] if len(kinds) == 1 else "unknown"
    if kinds == (UNET,):
        text_dim = _text_dim(layers, header.shapes)
        kind = family(text_dim)
    else:
        inputs = {name: layer.inputs(header.shapes) for name, layer in layers.items()}
        width = lora_kinds.inner_width({name: n for name, n in inputs.items() if n is not None})
    bundled = {
        name: sum(header.shapes[key][-1] for key in keys)
        for name, keys in lora_tensors.bundled(header.shapes).items()
    }
    about = sidecars.about(listed, header.metadata)
    output_name = header.metadata.get("ss_output_name", "").strip()[:200]
    aliases = dict.fromkeys(alias for alias in (listed.stem, output_name) if alias)
    info = LoraInfo(
        name=listed.key,
        aliases=tuple(alias for alias in aliases if alias != listed.key),
        family=kind,
        text_dim=text_dim,
        title=about.title or output_name,
        description=about.description,
        defaults=_defaults(kinds, listed.key, output_name),
        trigger_words=(*bundled, *(about.trigger_words or _frequent_tags(header.metadata))),
    )
    numbers = sum(layer.numbers(header.shapes) for layer in layers.values())
    return LoraEntry(listed.path, info, kinds, width, bundled, numbers, about.picture)


def _defaults(kinds: tuple[str, ...], *names: str) -> LoraDefaults | None:
    """What a LoRA that distils a model asks for; None for others.

    Transformers keep their scheduler, and those that read the guidance keep that.
    """
    found = few_steps.of_lora(*names)
    if found is None:
        return None
    guided = found.guided or not families.EMBEDDED_LORAS.isdisjoint(kinds)
    return LoraDefaults(
        num_inference_steps=found.steps,
        guidance_scale=None if guided else 0.0,
        scheduler=found.scheduler if kinds == (UNET,) else None,
    )


def _text_dim(layers: Mapping[str, Layer], shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Width of the text embeddings it was trained with; None if its layers do not show it."""
    reading_text = (
        layer.inputs(shapes)
        for name, layer in layers.items()
        if "attn2" in name and name.endswith(("to_k", "to_v"))
    )
    if width := next(filter(None, reading_text), None):
        return width
    if any(n.startswith(("lora_te2_", "text_encoder_2.")) or "label_emb" in n for n in layers):
        return 2048
    for name, layer in layers.items():  # SD 1.x and 2.x: the encoder is as wide as its text
        if name.startswith(("lora_te_", "text_encoder.")) and name.endswith("q_proj"):
            return layer.inputs(shapes)
    return None


def _frequent_tags(about: Mapping[str, str]) -> tuple[str, ...]:
    """The most frequent tags of the training set."""
    try:
        folders = json.loads(about.get("ss_tag_frequency", "{}"))
        counts: Counter[str] = Counter()
        for tags in folders.values():
            counts.update({tag.strip(): int(count) for tag, count in tags.items()})
    except (ValueError, AttributeError, TypeError):
        return ()  # free text of some tool, and nothing depends on it
    return tuple(tag[:200] for tag, _ in counts.most_common(MAX_TRIGGER_WORDS) if tag)


def _describe_embedding(listed: Listed, header: Header) -> EmbeddingEntry:
    shapes = [header.shapes[key] for key in _vectors(header)]
    if not shapes:
        raise UnusableAddonError("is no textual inversion: it holds neither emb_params nor clip_l")
    counts = {shape[0] if len(shape) == 2 else 1 for shape in shapes}
    if len(counts) != 1 or 0 in counts or not all(shapes):
        raise UnusableAddonError("is damaged: its vectors do not fit together")
    widths = tuple(shape[-1] for shape in shapes)
    text_dim = sum(widths)
    info = EmbeddingInfo(
        name=listed.stem,  # the word in prompts, in which folder it is
        family=family(text_dim),
        text_dim=text_dim,
        vectors=counts.pop(),
    )
    return EmbeddingEntry(listed.path, info, widths)


def _vectors(header: Header) -> tuple[str, ...]:
    """Keys of an embedding's vectors, SDXL's first encoder first; empty if it is no embedding."""
    keys = tuple(header.shapes)
    if {"clip_l", "clip_g"} <= set(keys):
        return ("clip_l", "clip_g")
    if "emb_params" in keys:
        return ("emb_params",)
    if len(keys) == 1 and len(header.shapes[keys[0]]) in (1, 2):  # diffusers: the word itself
        return () if keys[0].endswith((".weight", ".bias")) else keys
    return ()


def family(text_dim: int | None) -> str:
    """Short name of the family with this width of text embeddings."""
    if text_dim is None:
        return "unknown"
    return FAMILIES[text_dim][0] if text_dim in FAMILIES else f"width-{text_dim}"


def misfit(lora: LoraEntry, model: ModelEntry) -> str | None:
    """Why a LoRA does not fit a model; None if it fits, or if a width is unknown."""
    name, its, kind = lora.info.name, model.info.name, model.spec.family.loras
    if kind == UNET and UNET in lora.kinds:
        has, wants = lora.info.text_dim, model.text_dim
        if has is None or wants is None or has == wants:
            return None
        return message(
            "lora_misfit",
            "{name} is for {theirs}, but {model} is {ours}",
            name=name,
            theirs=_title(has),
            model=its,
            ours=_title(wants),
        )
    if kind not in lora.kinds:
        titles = (lora_kinds.TITLES.get(each, "Stable Diffusion") for each in lora.kinds)
        return message(
            "lora_family",
            "{name} is for {theirs}, but {model} is of the family {family}",
            name=name,
            theirs=" or ".join(titles),
            model=its,
            family=model.info.family,
        )
    width = model.transformer_width
    if lora.width is None or width is None or lora.width == width:
        return None
    return message(
        "lora_width",
        "{name} is for a model that is {theirs} wide, but {model} is {ours} wide",
        name=name,
        theirs=lora.width,
        model=its,
        ours=width,
    )


def unread(lora: LoraEntry, model: ModelEntry) -> tuple[str, ...]:
    """Names of the embeddings bundled with a LoRA that this model does not read."""
    width = model.text_dim if model.spec.family.loras == UNET else None
    return tuple(name for name, its in lora.bundled.items() if its != width)


def _title(text_dim: int) -> str:
    title = FAMILIES[text_dim][1] if text_dim in FAMILIES else "a model of its own"
    return f"{title} (text width {text_dim})"
