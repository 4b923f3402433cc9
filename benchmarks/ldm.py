"""Single-file checkpoints out of diffusers folders: tensors under their original names.

The inverse of diffusers' conversion (`diffusers.loaders.single_file_utils`), for any number of
levels and layers, so that tiny models go through `from_single_file` as real ones do.

    python -m benchmarks.ldm FOLDER FILE
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Weights = dict[str, torch.Tensor]

UNET = "model.diffusion_model."
VAE = "first_stage_model."

# Within a block, diffusers' name → the original one.
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_REST = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}


def single_file(folder: Path, file: Path, metadata: dict[str, str] | None = None) -> Path:
    """Write the checkpoint of an SD 1, SD 2 or SDXL folder; the kind is told by its encoders."""
    weights = {UNET + name: value for name, value in unet(folder / "unet").items()}
    weights |= {VAE + name: value for name, value in vae(folder / "vae").items()}
    for prefix, encoder in _encoders(folder):
        weights |= {prefix + name: value for name, value in encoder.items()}
    weights |= _ballast(list(weights))
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, file, metadata)
    return file


def _ballast(names: list[str]) -> Weights:
    """What published checkpoints hold beside: training's leftovers, layers unread."""
    number = torch.ones(1)
    leftovers = {
        "betas": number,
        "model_ema.decay": number,
        "first_stage_model.loss.logvar": number,
    }
    for name in names:
        if name.endswith("text_model.embeddings.position_embedding.weight"):
            leftovers[name.replace("position_embedding.weight", "position_ids")] = torch.arange(77)
        if name.endswith("model.positional_embedding"):
            leftovers[name.replace("positional_embedding", "logit_scale")] = number
        if name.startswith(
            "cond_stage_model.model.transformer.resblocks.0."
        ):  # SD 2 reads 23 of 24
            leftovers[name.replace("resblocks.0.", "resblocks.23.")] = number
    return leftovers


def _encoders(folder: Path) -> list[tuple[str, Weights]]:
    first, second = folder / "text_encoder", folder / "text_encoder_2"
    if not second.is_dir():
        if json.loads((first / "config.json").read_text())["hidden_act"] == "gelu":
            return [("cond_stage_model.model.", open_clip(first))]
        return [("cond_stage_model.transformer.", clip(first))]
    if not first.is_dir():
        return [("conditioner.embedders.0.model.", open_clip(second))]
    return [
        ("conditioner.embedders.0.transformer.", clip(first)),
        ("conditioner.embedders.1.model.", open_clip(second)),
    ]


def unet(folder: Path) -> Weights:
    """A UNet under the names of CompVis' `openaimodel.UNetModel`."""
    config = json.loads((folder / "config.json").read_text())
    return {
        _unet_name(name, config): value
        for name, value in load_file(folder / "diffusion_pytorch_model.safetensors").items()
    }


def _unet_name(name: str, config: dict[str, Any]) -> str:
    stride = config["layers_per_block"] + 1  # original blocks a level
    if found := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name):
        way, level, what, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        number = level * stride + layer + (1 if way == "down" else 0)
        block = f"{'input' if way == 'down' else 'output'}_blocks.{number}"
        match what:
            case "resnets":
                return f"{block}.0.{_renamed(rest, UNET_RESNET)}"
            case "attentions":
                return f"{block}.1.{rest}"
            case "downsamplers":
                return f"input_blocks.{(level + 1) * stride}.0.op.{rest.removeprefix('conv.')}"
            case _:
                attends = config["up_block_types"][level].startswith("CrossAttn")
                block = f"output_blocks.{(level + 1) * stride - 1}"
                return f"{block}.{2 if attends else 1}.{rest}"
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name):
        if found[1] == "attentions":
            return f"middle_block.1.{found[3]}"
        return f"middle_block.{2 * int(found[2])}.{_renamed(found[3], UNET_RESNET)}"
    return _renamed(name, UNET_REST)


def vae(folder: Path) -> Weights:
    """A VAE under the names of CompVis' `autoencoder.AutoencoderKL`."""
    levels = len(json.loads((folder / "config.json").read_text())["block_out_channels"])
    weights = {}
    for name, value in load_file(folder / "diffusion_pytorch_model.safetensors").items():
        original = _vae_name(name, levels)
        is_attention = ".attn_1." in original and original.endswith(".weight")
        if is_attention and ".norm." not in original:
            value = value[:, :, None, None]  # a 1×1 convolution there
        weights[original] = value
    return weights


def _vae_name(name: str, levels: int) -> str:
    if found := re.fullmatch(r"(encoder|decoder)\.(down|up)_blocks\.(\d+)\.(\w+)\.(.+)", name):
        half, way, level, what, rest = found[1], found[2], int(found[3]), found[4], found[5]
        level = level if way == "down" else levels - 1 - level  # numbered from the picture's side
        if what == "resnets":
            rest = rest.replace("conv_shortcut", "nin_shortcut")
            return f"{half}.{way}.{level}.block.{rest}"
        return f"{half}.{way}.{level}.{way}sample.{rest.removeprefix('0.')}"
    if found := re.fullmatch(r"(encoder|decoder)\.mid_block\.resnets\.(\d)\.(.+)", name):
        return f"{found[1]}.mid.block_{int(found[2]) + 1}.{found[3]}"
    if found := re.fullmatch(r"(encoder|decoder)\.mid_block\.attentions\.0\.(.+)", name):
        return f"{found[1]}.mid.attn_1.{_renamed(found[2], VAE_ATTENTION)}"
    return name.replace("conv_norm_out", "norm_out")


def clip(folder: Path) -> Weights:
    """OpenAI's text encoder: the names are transformers' own of the time."""
    found = load_file(folder / "model.safetensors")
    return {f"text_model.{name.removeprefix('text_model.')}": found[name] for name in found}


def open_clip(folder: Path) -> Weights:
    """OpenCLIP's text encoder: query, key and value in one tensor, the projection transposed."""
    saved = load_file(folder / "model.safetensors")
    found = {f"text_model.{name.removeprefix('text_model.')}": saved[name] for name in saved}
    projection = found.pop("text_model.text_projection.weight", None)
    weights = {original: found[name] for name, original in OPEN_CLIP.items()}
    if projection is not None:
        weights["text_projection"] = projection.T
    layers = 1 + max(int(name.split(".")[3]) for name in found if ".layers." in name)
    for layer in range(layers):
        ours, theirs = f"text_model.encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            joint = [found[f"{ours}self_attn.{one}_proj.{kind}"] for one in "qkv"]
            weights[f"{theirs}attn.in_proj_{kind}"] = torch.cat(joint)
            weights[f"{theirs}attn.out_proj.{kind}"] = found[f"{ours}self_attn.out_proj.{kind}"]
            weights[f"{theirs}ln_1.{kind}"] = found[f"{ours}layer_norm1.{kind}"]
            weights[f"{theirs}ln_2.{kind}"] = found[f"{ours}layer_norm2.{kind}"]
            weights[f"{theirs}mlp.c_fc.{kind}"] = found[f"{ours}mlp.fc1.{kind}"]
            weights[f"{theirs}mlp.c_proj.{kind}"] = found[f"{ours}mlp.fc2.{kind}"]
    return weights


def _renamed(name: str, table: dict[str, str]) -> str:
    """The name with its beginning replaced as the table says."""
    for ours, theirs in table.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    return name


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.ldm", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    single_file(arguments.folder, arguments.file)


if __name__ == "__main__":
    main()
