"""Models of real sizes with random weights: time depends on shapes, not on what was learned.

The configurations are those of `stable-diffusion-v1-5` and `stable-diffusion-xl-base-1.0` on the
Hugging Face hub. The tokenizer is tintype's, whose words are among the first of CLIP's vocabulary.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from benchmarks import stock
from benchmarks.baseline import TINTYPE
from benchmarks.servers import ROOT

TOKENS = 77
CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "vocab_size": 49408,
}
OPEN_CLIP_BIG_G: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
    "vocab_size": 49408,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


@dataclass(frozen=True)
class Geometry:
    """The shapes of a model.

    Attributes:
        name: of its folder, and in the catalog.
        title: for people.
        pipeline: class name in diffusers.
        side: the model's own width and height in pixels.
        unet, vae: arguments of the classes.
        text_encoders: of each text encoder, in the pipeline's order.
    """

    name: str
    title: str
    pipeline: str
    side: int
    unet: Mapping[str, Any]
    vae: Mapping[str, Any] = field(default_factory=lambda: VAE)
    text_encoders: tuple[Mapping[str, Any], ...] = (CLIP_L,)


SD15 = Geometry(
    name="sd15",
    title="Stable Diffusion 1.5",
    pipeline="StableDiffusionPipeline",
    side=512,
    unet={
        "sample_size": 64,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "block_out_channels": (320, 640, 1280, 1280),
    },
    vae=VAE | {"sample_size": 512, "scaling_factor": 0.18215},
)
SDXL = Geometry(
    name="sdxl",
    title="Stable Diffusion XL",
    pipeline="StableDiffusionXLPipeline",
    side=1024,
    unet={
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "use_linear_projection": True,
    },
    # As with the VAE that everyone takes for half precision, sdxl-vae-fp16-fix.
    vae=VAE | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": False},
    text_encoders=(CLIP_L, OPEN_CLIP_BIG_G),
)
# To try a benchmark itself.
TINY = replace(
    SD15,
    name="tiny",
    title="a tiny model",
    side=64,
    unet={
        "sample_size": 8,
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "block_out_channels": (32, 32),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
    vae=VAE | {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1},
    text_encoders=(CLIP_L | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},),
)
GEOMETRIES = {geometry.name: geometry for geometry in (SD15, SDXL, TINY)}


def write(geometry: Geometry, models_dir: Path) -> Path:
    """Draw weights and write the model as half-precision safetensors; its folder."""
    stock.hush()
    folder = models_dir / geometry.name
    special = json.loads((TINTYPE / "text_encoder" / "config.json").read_text())
    ids = {name: special[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    with _half_precision(), torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel(**geometry.unet),
            "vae": AutoencoderKL(**geometry.vae),
        }
        # SDXL's second encoder, the one with a projection, gives the pooled embedding.
        for number, config in enumerate(geometry.text_encoders):
            cls = CLIPTextModelWithProjection if number else CLIPTextModel
            suffix = f"_{number + 1}" if number else ""
            parts[f"text_encoder{suffix}"] = cls(CLIPTextConfig(**config, **ids))
            parts[f"tokenizer{suffix}"] = CLIPTokenizer.from_pretrained(TINTYPE / "tokenizer")
    parts["scheduler"] = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    if geometry.pipeline == "StableDiffusionPipeline":
        parts |= {"safety_checker": None, "feature_extractor": None}
        parts["requires_safety_checker"] = False
    getattr(diffusers, geometry.pipeline)(**parts).save_pretrained(folder)
    return folder


@contextmanager
def _half_precision() -> Iterator[None]:
    """New parameters take two bytes: SDXL's would not fit beside themselves in four."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def unet_flops(geometry: Geometry, side: int, rows: int) -> int:
    """Floating-point operations of one UNet call, counted without doing it.

    Args:
        geometry: of the model.
        side: width and height of the picture in pixels.
        rows: of the batch; an image with guidance takes two.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        unet: Any = UNet2DConditionModel(**geometry.unet)
        width = geometry.unet["cross_attention_dim"]
        pooled = geometry.text_encoders[-1]["projection_dim"]
        unet(
            torch.empty(rows, 4, side // 8, side // 8),
            torch.empty(rows),
            encoder_hidden_states=torch.empty(rows, TOKENS, width),
            added_cond_kwargs={
                "text_embeds": torch.empty(rows, pooled),
                "time_ids": torch.empty(rows, 6),
            },
        )
    flops: int = counter.get_total_flops()
    return flops


def write_apart(geometry: Geometry, models_dir: Path) -> None:
    """`write` in a process of its own, so that the memory it took is given back.

    Raises:
        subprocess.CalledProcessError: it failed; what it wrote is on standard error.
    """
    command = [sys.executable, "-m", "benchmarks.geometry", geometry.name, str(models_dir)]
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.geometry", description=__doc__)
    parser.add_argument("name", choices=sorted(GEOMETRIES))
    parser.add_argument("models_dir", type=Path)
    arguments = parser.parse_args()
    write(GEOMETRIES[arguments.name], arguments.models_dir)


if __name__ == "__main__":
    main()
