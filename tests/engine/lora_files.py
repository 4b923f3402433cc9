"""Making LoRA files with seeded random weights, in every naming, and pipelines to try them on."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from darkroom.catalog.listing import EMBEDDED
from darkroom.engine.lora_file import DENOISERS

TOKENIZER = EMBEDDED / "tintype" / "tokenizer"
ATTENTION = r"attn[12]\.to_(q|k|v|out\.0)$|(q|k|v|out)_proj$"
EVERYTHING = r"."
END = 2144  # tintype's end of text


@dataclass(frozen=True)
class Layer:
    """One layer of a LoRA as trained: ΔW = alpha / rank · up · down."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    def delta(self) -> torch.Tensor:
        """ΔW, in the shape of the layer's weight."""
        rank = self.down.shape[0]
        product = self.up.reshape(-1, rank) @ self.down.reshape(rank, -1)
        return self.alpha / rank * product.reshape(len(self.up), *self.down.shape[1:])


# Part of the pipeline → layer in it → weights.
Lora = dict[str, dict[str, Layer]]


def draw(
    pipeline: Any,
    *,
    seed: int = 0,
    rank: int = 4,
    alpha: float = 4.0,
    conv_alpha: float | None = None,
    layers: str = ATTENTION,
    parts: tuple[str, ...] = ("unet", "text_encoder", "text_encoder_2"),
) -> Lora:
    """Random weights for each layer of a pipeline whose name holds the pattern `layers`."""
    generator = torch.Generator().manual_seed(seed)
    lora: Lora = {}
    for part in parts:
        model = getattr(pipeline, part, None)
        lora[part] = {}
        for name, module in model.named_modules() if model is not None else ():
            if not re.search(layers, name):
                continue
            if isinstance(module, torch.nn.Linear):
                down = torch.randn(rank, module.in_features, generator=generator)
                up = torch.randn(module.out_features, rank, generator=generator)
                lora[part][name] = Layer(down * 0.1, up * 0.1, alpha)
            elif isinstance(module, torch.nn.Conv2d):
                shape = (rank, module.in_channels, *module.kernel_size)
                down = torch.randn(shape, generator=generator)
                up = torch.randn(module.out_channels, rank, 1, 1, generator=generator)
                lora[part][name] = Layer(down * 0.1, up * 0.1, conv_alpha or alpha)
    return lora


def merge(pipeline: Any, lora: Lora, scale: float) -> None:
    """Add a LoRA to a pipeline's own weights: what every way of applying it must come to."""
    for part, layers in lora.items():
        for name, layer in layers.items():
            weight = getattr(pipeline, part).get_submodule(name).weight
            weight.data += scale * layer.delta().to(weight)


def _trained_name(part: str, name: str) -> str:
    """How layers of text encoders were called when files were made, before transformers 5."""
    if part in DENOISERS or name.startswith(("text_model.", "text_projection")):
        return name
    return f"text_model.{name}"


def _sgm_embedding(found: re.Match[str]) -> str:
    """kohya trains SDXL on the original code's UNet, where this has another name."""
    return f"label_emb_0_{2 * (int(found[1]) - 1)}"


def kohya(path: Path, lora: Lora, metadata: dict[str, str] | None = None) -> Path:
    """As kohya's sd-scripts save; for SDXL with two encoders' names, as they do."""
    encoder = "lora_te1" if lora.get("text_encoder_2") else "lora_te"
    prefixes = {"unet": "lora_unet", "text_encoder": encoder, "text_encoder_2": "lora_te2"}
    tensors = {}
    for part, layers in lora.items():
        for name, layer in layers.items():
            key = f"{prefixes[part]}_{_trained_name(part, name).replace('.', '_')}"
            key = re.sub(r"add_embedding_linear_(\d)", _sgm_embedding, key)
            tensors[f"{key}.lora_down.weight"] = layer.down
            tensors[f"{key}.lora_up.weight"] = layer.up
            tensors[f"{key}.alpha"] = torch.tensor(layer.alpha)
    save_file(tensors, path, metadata)
    return path


def peft(path: Path, lora: Lora, metadata: dict[str, str] | None = None) -> Path:
    """As diffusers' `save_lora_weights` does now. Alpha is lost, unless the metadata say it."""
    tensors = {}
    for part, layers in lora.items():
        for name, layer in layers.items():
            key = f"{part}.{_trained_name(part, name)}"
            tensors[f"{key}.lora_A.weight"] = layer.down
            tensors[f"{key}.lora_B.weight"] = layer.up
    save_file(tensors, path, metadata)
    return path


def old_diffusers(path: Path, lora: Lora, prefix: str = "unet.") -> Path:
    """As diffusers saved attention processors and encoders before peft. Alpha is lost."""
    tensors = {}
    for part, layers in lora.items():
        for name, layer in layers.items():
            key = f"{part}.{_trained_name(part, name)}"
            if part == "unet":
                attention, _, projection = name.removesuffix(".0").rpartition(".")
                key = f"{prefix}{attention}.processor.{projection}_lora"
            else:
                key = re.sub(r"\.(\w+)_proj$", r".to_\1_lora", key)
            tensors[f"{key}.down.weight"] = layer.down
            tensors[f"{key}.up.weight"] = layer.up
    save_file(tensors, path)
    return path


# --- pipelines -----------------------------------------------------------------------------


def _unet(text_dim: int, **options: Any) -> UNet2DConditionModel:
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text_dim,
        attention_head_dim=8,
        norm_num_groups=8,
        **options,
    ).eval()


def _text_config(width: int, end: int = END) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=END + 1,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=24,
        bos_token_id=END - 1,
        eos_token_id=end,
        pad_token_id=END,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=8, latent_channels=4)


def tiny_sd(width: int = 32) -> StableDiffusionPipeline:
    """Stable Diffusion in small, its weights always the same; `width` of the text."""
    unet = _unet(width)
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(width)).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_sdxl() -> StableDiffusionXLPipeline:
    """SDXL in small: two encoders, 16 + 32 wide, the end of text marked as in SDXL's own config."""
    unet = _unet(
        48,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
    )
    return StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(16, end=2)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(32, end=2)).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
        tokenizer_2=CLIPTokenizer.from_pretrained(TOKENIZER),
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        add_watermarker=False,
    )


@torch.inference_mode()
def outputs(pipeline: Any, prompt: str = "a red fox") -> list[torch.Tensor]:
    """What the text encoders say of a prompt, and what the UNet predicts from that."""
    sdxl = hasattr(pipeline, "text_encoder_2")
    embeds = pipeline.encode_prompt(
        prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    generator = torch.Generator().manual_seed(3)
    added = None
    texts = [embeds[0]]  # (1, tokens, text width)
    if sdxl:
        texts.append(embeds[2])  # (1, pooled width)
        added = {"text_embeds": embeds[2], "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
    predicted = pipeline.unet(
        torch.randn(1, 4, 8, 8, generator=generator),
        torch.tensor(500),
        encoder_hidden_states=embeds[0],
        added_cond_kwargs=added,
        return_dict=False,
    )[0]  # (1, 4, 8, 8)
    return [*texts, predicted]
