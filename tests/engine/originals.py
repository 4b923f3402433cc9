"""Files of single networks out of diffusers folders: tensors under the names of their authors.

The inverse of diffusers' conversions, for any width, so that tiny models are read as real ones are.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from gguf import (
    GGML_QUANT_SIZES,
    MODEL_ARCH,
    GGMLQuantizationType,
    GGUFWriter,
    get_tensor_name_map,
)
from gguf.quants import quantize
from safetensors.torch import load_file, save_file

from benchmarks import ldm

Weights = dict[str, torch.Tensor]
TRANSFORMER = "model.diffusion_model."

FLUX = {
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
FLUX_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
FLUX_SINGLE = {
    "norm.linear": "modulation.lin",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
    "proj_out": "linear2",
}
FLUX2 = FLUX | {
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
}
FLUX2_DOUBLE = FLUX_DOUBLE | {
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
}
FLUX2_SINGLE = FLUX_SINGLE | {"attn.to_qkv_mlp_proj": "linear1", "attn.to_out": "linear2"}
SD3 = {
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
SD3_BLOCK = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
OURS = ("attn.to_q", "attn.to_k", "attn.to_v")
ADDED = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
Z_IMAGE = {
    "all_final_layer.2-1.": "final_layer.",
    "all_x_embedder.2-1.": "x_embedder.",
    ".attention.to_out.0.": ".attention.out.",
    ".attention.norm_k.": ".attention.k_norm.",
    ".attention.norm_q.": ".attention.q_norm.",
}


def wan_vae() -> AutoencoderKLQwenImage:
    """A VAE with as many blocks as the published one, whose names are counted by them."""
    torch.manual_seed(40)
    return AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, latents_mean=[0.1] * 4, latents_std=[1.5] * 4
    )


def loaded(part: Path) -> Weights:
    """The weights of a folder's part."""
    (file,) = part.glob("*.safetensors")
    return load_file(file)


def denoiser(folder: Path) -> Weights:
    """A model's transformer or UNet under the names of its authors."""
    if (folder / "unet").is_dir():
        return ldm.unet(folder / "unet")
    part = folder / "transformer"
    found = loaded(part)
    match json.loads((part / "config.json").read_text())["_class_name"]:
        case "QwenImageTransformer2DModel":
            return found  # those are diffusers' own
        case "ZImageTransformer2DModel":
            return _z_image(found)
        case "SD3Transformer2DModel":
            return _sd3(found)
        case "Flux2Transformer2DModel":
            return _flux(found, FLUX2, FLUX2_DOUBLE, FLUX2_SINGLE)
    return _flux(found, FLUX, FLUX_DOUBLE, FLUX_SINGLE)


def _swapped(value: torch.Tensor) -> torch.Tensor:
    """Shift before scale."""
    scale, shift = value.chunk(2)
    return torch.cat([shift, scale])


def _flux(
    found: Weights, outside: dict[str, str], double: dict[str, str], single: dict[str, str]
) -> Weights:
    joined = {
        "double": {"img_attn.qkv": OURS, "txt_attn.qkv": ADDED},
        "single": {"linear1": (*OURS, "proj_mlp")},
    }
    weights: Weights = {}
    for name, value in found.items():
        layer, _, kind = name.rpartition(".")
        if block := re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", layer):
            which = "single" if block[1] else "double"
            theirs = f"{which}_blocks.{block[2]}."
            ours = layer.removesuffix(block[3])
            for target, parts in joined[which].items():
                if block[3] == parts[0]:
                    values = [found[f"{ours}{part}.{kind}"] for part in parts]
                    weights[f"{theirs}{target}.{kind}"] = torch.cat(values)
            table = single if block[1] else double
            if block[3] in table:
                kind = "scale" if ".norm_" in layer else kind
                weights[f"{theirs}{table[block[3]]}.{kind}"] = value
        elif layer == "norm_out.linear":
            weights[f"{outside[layer]}.{kind}"] = _swapped(value)
        elif layer.startswith("distilled_guidance_layer.layers"):
            layer = layer.replace("linear_1", "in_layer").replace("linear_2", "out_layer")
            weights[f"{layer}.{kind}"] = value
        elif layer.startswith("distilled_guidance_layer.norms"):
            weights[f"{layer}.scale"] = value
        else:
            weights[f"{outside.get(layer, layer)}.{kind}"] = value
    return weights


def _sd3(found: Weights) -> Weights:
    last = max(int(name.split(".")[1]) for name in found if name.startswith("transformer_blocks."))
    weights: Weights = {"pos_embed": found["pos_embed.pos_embed"]}
    for name, value in found.items():
        layer, _, kind = name.rpartition(".")
        if block := re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", layer):
            theirs, ours = f"joint_blocks.{block[1]}.", layer.removesuffix(block[2])
            for target, parts in (("x_block", OURS), ("context_block", ADDED)):
                if block[2] == parts[0]:
                    values = [found[f"{ours}{part}.{kind}"] for part in parts]
                    weights[f"{theirs}{target}.attn.qkv.{kind}"] = torch.cat(values)
            if block[2] in SD3_BLOCK:
                ends = block[2] == "norm1_context.linear" and int(block[1]) == last
                weights[f"{theirs}{SD3_BLOCK[block[2]]}.{kind}"] = (
                    _swapped(value) if ends else value
                )
        elif layer in SD3:
            weights[f"{SD3[layer]}.{kind}"] = (
                _swapped(value) if layer == "norm_out.linear" else value
            )
    return weights


def _z_image(found: Weights) -> Weights:
    weights: Weights = {}
    for name, value in found.items():
        if name.endswith(".attention.to_q.weight"):
            rest = (name.replace(".to_q.", f".to_{letter}.") for letter in "kv")
            joined = torch.cat([value, *(found[each] for each in rest)])
            weights[name.replace(".to_q.", ".qkv.")] = joined
        elif ".attention.to_k." not in name and ".attention.to_v." not in name:
            for ours, theirs in Z_IMAGE.items():
                name = name.replace(ours, theirs)
            weights[name] = value
    return weights


def vae(folder: Path) -> Weights:
    """A model's VAE under the names of its authors."""
    part = folder / "vae"
    match json.loads((part / "config.json").read_text())["_class_name"]:
        case "AutoencoderKLQwenImage":
            return _wan_vae(loaded(part))
        case "AutoencoderKLFlux2":
            return {
                re.sub(r"^quant_conv", "encoder.quant_conv", name).replace(
                    "post_quant_conv", "decoder.post_quant_conv"
                ): value
                for name, value in ldm.vae(part).items()
            }
    return ldm.vae(part)


def _wan_vae(found: Weights) -> Weights:
    """Wan's names, out of diffusers' conversion of all names that there may be."""
    blocks = [f"{half}.{number}" for half in WAN_BLOCKS for number in range(15)]
    blocks += [f"{half}.middle.{number}" for half in ("encoder", "decoder") for number in (0, 2)]
    names = [f"{block}.{inner}" for block in blocks for inner in WAN_INNER]
    names += [f"{half}.{inner}" for half in ("encoder", "decoder") for inner in WAN_OUTER]
    names += [f"conv{number}.{kind}" for number in (1, 2) for kind in ("weight", "bias")]
    theirs = convert_wan_vae_to_diffusers({name: name for name in names})
    return {theirs[name]: value for name, value in found.items()}


WAN_BLOCKS = ("encoder.downsamples", "decoder.upsamples")
WAN_INNER = (
    *(f"residual.{index}.gamma" for index in (0, 3)),
    *(f"residual.{index}.{kind}" for index in (2, 6) for kind in ("weight", "bias")),
    *(
        f"{name}.{kind}"
        for name in ("shortcut", "resample.1", "time_conv")
        for kind in ("weight", "bias")
    ),
)
WAN_OUTER = (
    *(f"conv1.{kind}" for kind in ("weight", "bias")),
    *("middle.1.norm.gamma", "head.0.gamma"),
    *(
        f"{name}.{kind}"
        for name in ("middle.1.to_qkv", "middle.1.proj")
        for kind in ("weight", "bias")
    ),
    *(f"head.2.{kind}" for kind in ("weight", "bias")),
)


def encoder(folder: Path, name: str) -> Weights:
    """A model's text encoder under the names that files of their own have."""
    found = loaded(folder / name)
    kind = json.loads((folder / name / "config.json").read_text())["architectures"][0]
    if kind.startswith("CLIPText"):
        return {
            key if key.startswith("text_") else f"text_model.{key}": value
            for key, value in found.items()
        }
    if kind == "Qwen3Model":
        return {f"model.{key}": value for key, value in found.items()}
    if kind.startswith("Qwen2_5_VL"):
        return {
            key.replace("model.language_model.", "model.").replace(
                "model.visual.", "visual."
            ): value
            for key, value in found.items()
        }
    return found


def configuration(folder: Path, target: Path) -> Path:
    """What a folder says of its model, without weights: tokenizers, sizes, scheduler."""
    return shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))


def save(weights: Weights, path: Path) -> Path:
    """Write a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: value.contiguous().clone() for name, value in weights.items()}
    save_file(whole, path, {"format": "pt"})
    return path


def split(folder: Path, box: Path, name: str = "model", named: bool = True) -> Path:
    """A model as ComfyUI keeps it: a transformer, text encoders and a VAE, each a file.

    Args:
        box: a data folder.
        name: of the model there.
        named: its notes say which files they are. Tiny models' parts are otherwise alike.
    """
    configuration(folder, box / "configs" / name)
    parts = {part.name: f"{name}-{part.name}" for part in sorted(folder.glob("text_encoder*"))}
    for part, file in parts.items():
        save(encoder(folder, part), box / "text_encoders" / f"{file}.safetensors")
    parts["vae"] = f"{folder.name}-{name}-vae"
    save(vae(folder), box / "vae" / f"{parts['vae']}.safetensors")
    path = save(denoiser(folder), box / "models" / f"{name}.safetensors")
    note(path, folder, name, **({"parts": parts} if named else {}))
    return path


def whole(folder: Path, box: Path, name: str = "model") -> Path:
    """A model in one file, with the names that ComfyUI gives its parts."""
    configuration(folder, box / "configs" / name)
    if (folder / "unet").is_dir():
        path = ldm.single_file(folder, box / "models" / f"{name}.safetensors")
        note(path, folder, name)
        return path
    weights = {TRANSFORMER + key: value for key, value in denoiser(folder).items()}
    weights |= {f"vae.{key}": value for key, value in vae(folder).items()}
    for part in sorted(folder.glob("text_encoder*")):
        prefix = f"text_encoders.{part.name}.transformer."
        weights |= {prefix + key: value for key, value in encoder(folder, part.name).items()}
    path = save(weights, box / "models" / f"{name}.safetensors")
    note(path, folder, name)
    return path


def gguf_encoder(folder: Path, path: Path) -> None:
    """A T5 or a Qwen3 as GGUF, in Q8_0, with llama.cpp's names as its own library has them."""
    config = json.loads((folder / "config.json").read_text())
    t5 = config["architectures"][0].startswith("T5")
    layers = config["num_layers" if t5 else "num_hidden_layers"]
    names = get_tensor_name_map(MODEL_ARCH.T5ENCODER if t5 else MODEL_ARCH.QWEN3, layers)
    writer = GGUFWriter(path, arch="t5encoder" if t5 else "qwen3")
    for key, value in loaded(folder).items():
        full = key if t5 or key.startswith(("model.", "lm_head.")) else f"model.{key}"
        name = names.get_name(full, try_suffixes=(".weight",))
        assert name is not None, full
        numbers = value.to(torch.float32).contiguous().numpy()
        if value.ndim == 2 and value.shape[1] % 32 == 0:
            packed = quantize(numbers, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def note(path: Path, folder: Path, config: str, **more: Any) -> None:
    """Say beside a file which configuration describes it, and what its folder's notes say."""
    notes = folder / "darkroom.json"
    said = json.loads(notes.read_text()) if notes.is_file() else {}
    said |= {"config": config, **more}
    path.with_name(f"{path.stem}.darkroom.json").write_text(json.dumps(said))


def gguf(folder: Path, box: Path, name: str = "model", kind: str = "Q8_0") -> Path:
    """A model's network as GGUF, in `models`, and its other parts each as a file.

    Matrices whose rows have whole blocks of that kind are packed; all else is in 32 bits.
    """
    path = split(folder, box, name)
    writer = GGUFWriter(path.with_suffix(".gguf"), arch="flux")
    for key, value in load_file(path).items():
        numbers = value.to(torch.float32).contiguous().numpy()
        block = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]
        if value.ndim == 2 and value.shape[1] % block == 0 and len(value) > 1:
            packed = (
                pack_q4_k(numbers)
                if kind == "Q4_K"
                else quantize(numbers, GGMLQuantizationType[kind])
            )
            writer.add_tensor(key, packed, raw_dtype=GGMLQuantizationType[kind])
        else:
            writer.add_tensor(key, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.unlink()
    return path.with_suffix(".gguf")


def pack_q4_k(numbers: Any) -> Any:
    """Rows of multiples of 256 numbers in GGML's Q4_K, which its Python library only unpacks.

    Eight blocks of 32 have 4 bits a number, and a scale and a minimum of 6 bits each.
    """
    rows, width = numbers.shape
    blocks = numbers.reshape(-1, 8, 32)
    least = np.minimum(blocks.min(2), 0)
    scales = (blocks.max(2) - least) / 15
    of_scales = (scales.max(1, keepdims=True) / 63).astype(np.float16)
    of_least = (-least.min(1, keepdims=True) / 63).astype(np.float16)
    steps = np.float32(np.maximum(of_scales, np.float16(1e-7)))
    step_least = np.float32(np.maximum(of_least, np.float16(1e-7)))
    scale_bits = np.clip(np.round(scales / steps), 0, 63).astype(np.uint8)
    least_bits = np.clip(np.round(-least / step_least), 0, 63).astype(np.uint8)
    used = np.maximum(scale_bits * steps, 1e-8)[..., None]
    quants = (blocks + (least_bits * step_least)[..., None]) / used
    quants = np.clip(np.round(quants), 0, 15).astype(np.uint8)
    low = np.concatenate([scale_bits[:, :4], least_bits[:, :4]], 1)
    low = low | (np.concatenate([scale_bits[:, 4:], least_bits[:, 4:]], 1) >> 4 << 6)
    high = (scale_bits[:, 4:] & 15) | ((least_bits[:, 4:] & 15) << 4)
    pairs = quants.reshape(-1, 4, 2, 32)
    halves = (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(-1, 128)
    heads = [steps.astype(np.float16), step_least.astype(np.float16)]
    packed = np.concatenate([*(head.view(np.uint8) for head in heads), low, high, halves], 1)
    return packed.reshape(rows, width // 256 * 144)
