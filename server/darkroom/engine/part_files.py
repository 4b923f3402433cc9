"""Loads networks from files of single parts, as other programs keep them.

diffusers and transformers build and fill them. Here names are brought to what they know, scaled fp8
is multiplied out, and weights of GGUF stay as they are, to be unpacked layer by layer; those of
text encoders are unpacked.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import GGUFQuantizationConfig, TorchAoConfig
from diffusers.loaders.single_file_utils import (
    convert_ldm_vae_checkpoint,
    convert_wan_vae_to_diffusers,
)
from diffusers.models.model_loading_utils import load_gguf_checkpoint
from safetensors import safe_open

from darkroom.catalog import checkpoints, folders
from darkroom.catalog.model_entry import TRANSFORMER, ModelEntry, Quantized
from darkroom.catalog.single_files import Part
from darkroom.catalog.weight_files import SCALES
from darkroom.engine import gguf_encoders

Weights = dict[str, torch.Tensor]

# FLUX.1's and Chroma's names of a block's layers → diffusers'.
DOUBLE_BLOCK = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
SINGLE_BLOCK = {
    "modulation.lin": "norm.linear",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
    "linear2": "proj_out",
}
JOINED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}
OUTSIDE = {
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "txt_in": "context_embedder",
    "img_in": "x_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
FLUX2_VAE = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}


def load(entry: ModelEntry, dtype: torch.dtype) -> dict[str, Any]:
    """The networks of a model of `parts`, by the names of its parts; None for one that is absent.

    Raises whatever the libraries do of files that are damaged or of another size.
    """
    made: dict[str, Any] = {}
    for name, class_name in folders.parts(entry.config, entry.spec.family).items():
        part = entry.parts.get(name)
        if part is not None:
            made[name] = _network(class_name, part, entry.config / name, dtype, entry.quantize)
        elif name.startswith("text_encoder"):
            made[name] = None
    return made


def scaled_unet(entry: ModelEntry, dtype: torch.dtype) -> Any:
    """The UNet of a checkpoint whose weights have scales; raises as `load`."""
    part = Part(entry.path, checkpoints.UNET)
    return _network("UNet2DConditionModel", part, entry.config / "unet", dtype, None)


def quantization(how: Quantized) -> TorchAoConfig:
    """How diffusers is told to quantise weights while it loads them.

    torchao is imported here: that takes seconds, and most models do without.
    """
    from torchao import quantization

    if how == "int8":
        return TorchAoConfig(quantization.Int8WeightOnlyConfig())
    return TorchAoConfig(quantization.Float8WeightOnlyConfig())


def _network(
    class_name: str, part: Part, config: Path, dtype: torch.dtype, quantize: Quantized | None
) -> Any:
    cls: Any = getattr(diffusers, class_name, None)
    if cls is None:
        found = read(part, dtype)
        weights = gguf_encoders.unpacked(found, dtype) if part.is_gguf else found
        return _encoder(getattr(transformers, class_name), weights, config, dtype)
    if class_name in ("AutoencoderKLFlux2", "AutoencoderKLQwenImage"):
        return _vae(cls, read(part, dtype), config, dtype)
    options: dict[str, Any] = {
        "config": str(config.parent),
        "subfolder": config.name,
        "dtype": dtype,
        "local_files_only": True,
    }
    if part.is_gguf:
        options["quantization_config"] = GGUFQuantizationConfig(compute_dtype=dtype)
    elif quantize is not None and config.name == TRANSFORMER:
        options["quantization_config"] = quantization(quantize)
    weights = read(part, dtype)
    if class_name in ("FluxTransformer2DModel", "ChromaTransformer2DModel"):
        weights = flux_names(weights)
    if class_name == "UNet2DConditionModel":
        weights = {f"model.diffusion_model.{name}": value for name, value in weights.items()}
    return cls.from_single_file(weights, **options)


def read(part: Part, dtype: torch.dtype) -> Weights:
    """The tensors of a part, without its prefix. Scaled fp8 is multiplied out."""
    if part.is_gguf:
        found: Weights = load_gguf_checkpoint(str(part.path))
    else:
        with safe_open(part.path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(part.prefix)]  # noqa: SIM118
            found = {name: file.get_tensor(name) for name in names}
    weights = {
        name.removeprefix(part.prefix): value
        for name, value in found.items()
        if name.startswith(part.prefix)
    }
    for name in [name for name in weights if name.endswith(SCALES)]:
        scale = weights.pop(name).to(torch.float32)
        layer = name.rpartition(".")[0] + ".weight"
        if layer in weights:
            weights[layer] = (weights[layer].to(torch.float32) * scale).to(dtype)
    leftovers = ("scaled_fp8", ".scale_input", ".input_scale", ".comfy_quant")
    return {name: value for name, value in weights.items() if not name.endswith(leftovers)}


def flux_names(weights: Mapping[str, torch.Tensor]) -> Weights:
    """FLUX.1's or Chroma's weights under diffusers' names, for any width.

    diffusers' own conversion knows the width of the published models only.
    """
    found: Weights = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        kind = "weight" if kind == "scale" else kind
        block, _, inner = layer.partition("blocks.")
        if block in ("double_", "single_"):
            number, _, inner = inner.partition(".")
            table = DOUBLE_BLOCK if block == "double_" else SINGLE_BLOCK
            prefix = f"{'' if block == 'double_' else 'single_'}transformer_blocks.{number}."
            if inner in JOINED:
                names = JOINED[inner]
                width = weights[f"{layer}.weight"].shape[0]
                inside = _inner(weights, layer, inner)
                sizes = [inside] * 3 + ([width - 3 * inside] if len(names) > 3 else [])
                for each, half in zip(names, torch.split(value, sizes), strict=True):
                    found[f"{prefix}{each}.{kind}"] = half
            else:
                found[f"{prefix}{table[inner]}.{kind}"] = value
        elif layer == "final_layer.adaLN_modulation.1":
            shift, scale = value.chunk(2)
            found[f"{OUTSIDE[layer]}.{kind}"] = torch.cat([scale, shift])
        elif layer.startswith("distilled_guidance_layer."):
            layer = layer.replace("in_layer", "linear_1").replace("out_layer", "linear_2")
            found[f"{layer}.{kind}"] = value
        else:
            found[f"{OUTSIDE.get(layer, layer)}.{kind}"] = value
    return found


def _inner(weights: Mapping[str, torch.Tensor], layer: str, inner: str) -> int:
    """Numbers of a query, of a layer that gives query, key and value and perhaps more."""
    if inner != "linear1":
        return weights[f"{layer}.weight"].shape[0] // 3
    # A block's other layer gives as many as come out of attention.
    return weights[f"{layer.removesuffix('linear1')}linear2.weight"].shape[0]


def _encoder(cls: Any, weights: Weights, config: Path, dtype: torch.dtype) -> Any:
    """A text encoder; transformers knows its older names."""
    settings = cls.config_class.from_pretrained(config, local_files_only=True)
    if cls.__name__.startswith("CLIPText"):
        with torch.device("meta"):
            has_level = hasattr(cls(settings), "text_model")
        prefix = "text_model." if has_level else ""
        weights = {
            name if name.startswith("text_projection") else prefix + name: value
            for name, value in (
                (name.removeprefix("text_model."), value) for name, value in weights.items()
            )
        }
        if "WithProjection" in cls.__name__ and "text_projection.weight" not in weights:
            # Stable Diffusion 3 reads CLIP-L as it is, which its files may leave out.
            weights["text_projection.weight"] = torch.eye(settings.hidden_size)
    model, report = cls.from_pretrained(
        None, config=settings, state_dict=weights, dtype=dtype, output_loading_info=True
    )
    if report["missing_keys"]:
        raise KeyError(sorted(report["missing_keys"])[0])
    return model


def _vae(cls: Any, weights: Weights, config: Path, dtype: torch.dtype) -> Any:
    """A VAE that diffusers does not read from a single file, but knows the names of."""
    settings = json.loads((config / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        model = cls.from_config(settings)
    if not model.state_dict().keys() <= weights.keys():
        if cls.__name__ == "AutoencoderKLQwenImage":
            weights = convert_wan_vae_to_diffusers(weights)
        else:
            for theirs, ours in FLUX2_VAE.items():
                weights = {name.replace(theirs, ours): value for name, value in weights.items()}
            normed = {name: value for name, value in weights.items() if name.startswith("bn.")}
            weights = {**convert_ldm_vae_checkpoint(weights, settings), **normed}
    missing = sorted(model.state_dict().keys() - weights.keys() - {"bn.num_batches_tracked"})
    if missing:
        raise KeyError(missing[0])
    model = cls.from_config(settings)
    model.load_state_dict(weights, strict=False)
    return model.to(dtype).eval()
