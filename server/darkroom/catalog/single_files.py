"""Single files of one network: a transformer or a UNet, and the files of its model's other parts.

Other programs keep a model's parts in folders of their own: the network that denoises in
`diffusion_models` or `unet`, text encoders in `text_encoders` or `clip`, VAEs in `vae`. Which file
is what is told by the names and shapes in its header. Some files hold several parts.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from darkroom.catalog import gguf_files, model_spec, weight_files
from darkroom.catalog.gguf_files import GGUF
from darkroom.catalog.weight_files import Header, UnusableError, read_json

# Before the names of the network's tensors: in checkpoints, in files of their own, saved by others.
PREFIXES = ("model.diffusion_model.", "", "diffusion_model.", "model.")

FIRST_LAYER = "input_blocks.0.0.weight"  # of a UNet
# Numbers that a UNet reads of each word → its configuration.
UNETS: Mapping[int, str] = {768: "sd1", 2048: "sdxl", 1280: "sdxl-refiner"}

# Tensors by which text encoders are recognised in llama.cpp's names.
T5_GGUF, QWEN3_GGUF = "enc.blk.0.attn_rel_b.weight", "blk.0.attn_q_norm.weight"
QWEN_VL = "Qwen2_5_VLForConditionalGeneration"
# Class of a part → a file that holds it, as its authors or ComfyUI's call it.
EXAMPLES: Mapping[str, str] = {
    "CLIPTextModel": "clip_l.safetensors",
    "CLIPTextModelWithProjection": "clip_l.safetensors or clip_g.safetensors",
    "T5EncoderModel": "t5xxl_fp16.safetensors",
    "Qwen3Model": "qwen_3_4b.safetensors",
    "Qwen3ForCausalLM": "qwen_3_4b.safetensors or qwen_3_8b.safetensors",
    QWEN_VL: "qwen_2.5_vl_7b.safetensors",
    "AutoencoderKL": "ae.safetensors",
    "AutoencoderKLFlux2": "flux2-vae.safetensors",
    "AutoencoderKLQwenImage": "qwen_image_vae.safetensors",
}
OPTIONAL = {("sd3", "text_encoder_3")}  # drawn without, with less of a long prompt
# Some VAEs are told apart by nothing but their names: SDXL's from Stable Diffusion's, Stable
# Diffusion 3's from FLUX.1's, which Z-Image and Chroma have too, and Qwen-Image's from Wan's.
OTHERS_VAE: Mapping[str, re.Pattern[str]] = {
    "sd": re.compile(r"xl", re.IGNORECASE),
    "sdxl": re.compile(r"^(?!.*xl)", re.IGNORECASE),
    "sd3": re.compile(r"flux|^ae(?![a-z])|z[-_]?image|chroma", re.IGNORECASE),
}
OTHER_VAE = re.compile(r"sd[-_]?3|wan", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """The weights of one part of a model.

    Attributes:
        path: the file that holds them.
        prefix: of the names of its tensors there.
    """

    path: Path
    prefix: str = ""

    @property
    def is_gguf(self) -> bool:
        return self.path.suffix.lower() == GGUF

    def numbers(self) -> int:
        """How many numbers it has; raises `UnusableError` if its file is damaged, or gone."""
        header = read_header(self.path)
        names = (name for name in header.shapes if name.startswith(self.prefix))
        return sum(math.prod(header.shapes[name]) for name in names)

    def expected_bytes(self, number_bytes: int, *, packed: bool) -> int:
        """Bytes in memory where a number takes so many; GGUF may be kept `packed`, as it is."""
        if self.is_gguf and packed:
            return self.path.stat().st_size
        return self.numbers() * number_bytes


@dataclass(frozen=True)
class Denoiser:
    """A file's network.

    Attributes:
        config: name of the carried configuration that describes it; None if none does.
        prefix: of the names of its tensors.
        what: it is called.
    """

    config: str | None
    prefix: str
    what: str


def read_header(path: Path) -> Header:
    """Read the header of a file in either format.

    Raises:
        UnusableError: it is damaged, or needs a library that is not installed.
    """
    if path.suffix.lower() != GGUF:
        return weight_files.read_floats(path)
    if find_spec("gguf") is None:
        raise UnusableError(f"{path.name} cannot be loaded without gguf: `pip install gguf`")
    return gguf_files.read_header(path)


def recognise(header: Header, name: str) -> Denoiser | None:
    """Recognise a network that stands alone or is a transformer; None for anything else.

    Args:
        name: of the file, which says what its tensors do not: kontext, turbo, base.

    Raises:
        UnusableError: it is one that is not served.
    """
    shapes = header.shapes
    said = f"{name} {header.metadata.get('modelspec.architecture', '')}".lower()
    for prefix in PREFIXES:
        config = _kind(_Names(shapes, prefix), said)
        if config is not None:
            weight_files.check_scales(header)
            return Denoiser(config, prefix, "transformer")
    for prefix in PREFIXES:
        names = _Names(shapes, prefix)
        if FIRST_LAYER in names and all(name.startswith(prefix) for name in shapes):
            weight_files.check_scales(header)
            return Denoiser(_unet(names), prefix, "UNet")
    return None


@dataclass(frozen=True)
class _Names:
    """The tensors of a file whose names begin alike."""

    shapes: Mapping[str, tuple[int, ...]]
    prefix: str

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.shapes

    def width(self, name: str) -> int:
        """Numbers that a layer reads; 0 if there is none."""
        shape = self.shapes.get(self.prefix + name, ())
        return shape[1] if len(shape) > 1 else 0


def _kind(names: _Names, said: str) -> str | None:
    """The configuration of a network; None if it is none that is known here."""
    if "double_stream_modulation_img.lin.weight" in names:
        width = names.width("txt_in.weight")
        if "guidance_in.in_layer.weight" in names:
            raise UnusableError("FLUX.2 dev is read from a folder in the diffusers format only")
        return f"flux2-klein{'-base' if 'base' in said else ''}-{'9b' if width == 12288 else '4b'}"
    if "distilled_guidance_layer.in_proj.weight" in names:
        if "final_layer.linear.weight" not in names:
            raise UnusableError("it is a Chroma that draws pixels, which is not served")
        return "chroma"
    if "double_blocks.0.img_attn.norm.key_norm.scale" in names and "img_in.weight" in names:
        return _flux(names, said)
    if "joint_blocks.0.context_block.adaLN_modulation.1.bias" in names:
        if "joint_blocks.37.x_block.mlp.fc1.weight" in names:
            return "sd3.5-large"
        dual = "joint_blocks.0.x_block.attn2.qkv.weight" in names
        return "sd3.5-medium" if dual else "sd3-medium"
    if "layers.0.adaLN_modulation.0.weight" in names and "cap_embedder.0.weight" in names:
        return "z-image-turbo" if "turbo" in said else "z-image"
    if "transformer_blocks.0.img_mod.1.weight" in names and "txt_norm.weight" in names:
        if "edit" in said:
            raise UnusableError("Qwen-Image-Edit is read from a diffusers folder only")
        return "qwen-image"
    return None


def _unet(names: _Names) -> str | None:
    """The configuration of a UNet alone, by what it reads of words; None if none describes it."""
    attends = (name for name in names.shapes if name.endswith(".attn2.to_k.weight"))
    words = {names.width(name.removeprefix(names.prefix)) for name in attends}
    known = [config for width, config in UNETS.items() if width in words]
    model_spec.check_channels(names.width(FIRST_LAYER))
    masked = names.width(FIRST_LAYER) == model_spec.INPAINTING
    if len(known) != 1 or (masked and known == ["sdxl-refiner"]):
        return None
    return f"{known[0]}-inpaint" if masked else known[0]


def _flux(names: _Names, said: str) -> str:
    reads = names.width("img_in.weight")
    if reads in (96, 128, 384):
        raise UnusableError(
            "it is FLUX.1 Fill, Canny or Depth, which reads a second picture and is not served"
        )
    if "vector_in.in_layer.weight" not in names:
        raise UnusableError("it is a relative of FLUX.1 that is not served")
    if "guidance_in.in_layer.weight" not in names:
        return "flux-schnell"
    return "flux-kontext" if "kontext" in said else "flux-dev"


def complete(
    denoiser: Part,
    what: str,
    classes: Mapping[str, str],
    config: Path,
    family: str,
    files: Callable[[str], Iterable[tuple[str, Path]]],
    named: Mapping[str, str],
    header: Callable[[Path], Header] = read_header,
) -> dict[str, Part]:
    """Find the other parts of a model: in its own file, in the file that is named, or in a folder.

    Args:
        what: the network is called.
        classes: of the model's parts, by their names.
        config: the folder that describes them.
        family: its name.
        files: names and paths of the files in the folders of VAEs (`vae`) or text encoders.
        named: the file of a part, where the owner says so.

    Raises:
        UnusableError: a part is nowhere; says which, and what to do.
    """
    found = {}
    for name, class_name in classes.items():
        if class_name not in EXAMPLES:
            continue
        folder = "vae" if name == "vae" else "text_encoders"
        wanted = read_json(config / name / "config.json")
        if name in named:
            candidates = [path for key, path in files(folder) if key == named[name]]
            if not candidates:
                raise UnusableError(
                    f"its notes name {named[name]!r} as its part {name}, which is not in {folder}"
                )
        else:
            own = prefix_of(class_name, wanted, header(denoiser.path))
            if own:
                found[name] = Part(denoiser.path, own)
                continue
            candidates = list(_ranked(files(folder), class_name, family))
        for path in candidates:
            try:
                prefix = prefix_of(class_name, wanted, header(path))
            except UnusableError:
                if name in named:
                    raise
                continue
            if prefix is not None:
                found[name] = Part(path, prefix)
                break
        else:
            if name in named:
                raise UnusableError(
                    f"its notes name {named[name]!r} as its part {name}, which is another network"
                )
            if (family, name) in OPTIONAL:
                continue
            raise UnusableError(
                f"it is a {what} alone: its part {name} is missing. Put a file such as "
                f"{EXAMPLES[class_name]} into the folder {folder}, or name one as `parts` in its "
                "notes"
            )
    return found


def _ranked(files: Iterable[tuple[str, Path]], class_name: str, family: str) -> Iterator[Path]:
    """The files that may hold a part, the most precise first."""
    others = OTHERS_VAE.get(family, OTHER_VAE)
    is_vae = class_name.startswith("Autoencoder")
    may_be = [path for key, path in files if not (is_vae and others.search(Path(key).name))]
    return iter(sorted(may_be, key=lambda path: (-path.stat().st_size, path.name)))


def prefix_of(class_name: str, config: Mapping[str, Any], header: Header) -> str | None:
    """What the names of a part's tensors begin with in a file; None if that does not hold it."""
    for name, shape in header.shapes.items():
        prefix = _prefix(class_name, config, name, shape, header.shapes)
        if prefix is not None:
            return prefix
    return None


def _prefix(
    class_name: str,
    config: Mapping[str, Any],
    name: str,
    shape: tuple[int, ...],
    names: Mapping[str, tuple[int, ...]],
) -> str | None:
    wanted: tuple[int, ...]
    if class_name.startswith("CLIPText"):
        mark = "embeddings.token_embedding.weight"
        if name.endswith(mark) and shape == (config["vocab_size"], config["hidden_size"]):
            return name.removesuffix(mark).removesuffix("text_model.")
    elif class_name == "T5EncoderModel":
        wanted = (config["vocab_size"], config["d_model"])
        if name == T5_GGUF and names.get("token_embd.weight") == wanted:
            return ""
        mark = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        if name.endswith(mark):
            prefix = name.removesuffix(mark)
            if names.get(prefix + "shared.weight") == wanted:
                return prefix
    elif class_name.startswith("Qwen"):
        mark, text = "embed_tokens.weight", config.get("text_config", config)
        wanted = (text["vocab_size"], text["hidden_size"])
        if name == QWEN3_GGUF and names.get("token_embd.weight") == wanted:
            return "" if class_name.startswith("Qwen3") else None
        if name.endswith(mark) and shape == wanted:
            prefix = name.removesuffix(mark)
            third = prefix + "layers.0.self_attn.q_norm.weight" in names
            if third == class_name.startswith("Qwen3"):
                return prefix.removesuffix("language_model.").removesuffix("model.")
    elif class_name == "AutoencoderKLQwenImage":
        wanted = (config["base_dim"] * config["dim_mult"][-1], config["z_dim"], 3, 3, 3)
        for mark in ("decoder.conv1.weight", "decoder.conv_in.weight"):
            if name.endswith(mark) and shape == wanted:
                return name.removesuffix(mark)
    elif name.endswith("decoder.conv_in.weight"):
        prefix = name.removesuffix("decoder.conv_in.weight")
        wanted = (config["block_out_channels"][-1], config["latent_channels"], 3, 3)
        normed = prefix + "bn.running_mean" in names
        if shape == wanted and normed == (class_name == "AutoencoderKLFlux2"):
            return prefix
    return None
