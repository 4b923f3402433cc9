"""Models of every architecture, tiny, with seeded random weights, in the diffusers format.

Their pictures are noise, but noise that depends on prompt, seed and every step, so equality with
the stock pipelines means what it means for real weights. A UNet call takes some 10 ms at 64×64
pixels. The VAE has three levels, so latents are a quarter of the pixels and not the usual eighth:
whoever assumes eight is found out.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from darkroom.catalog.listing import EMBEDDED

SIZE = 64  # pixels a side that each model is made for
HIDDEN = 32  # width of a text encoder
HIDDEN_2 = (
    48  # width of SDXL's second one; another, as in life, so that mixing them up is found out
)
TIME_IDS_WIDTH = 8  # SDXL's sizes and crops are embedded this wide, each
TOKENIZER = EMBEDDED / "tintype" / "tokenizer"

# The noise schedule that all of SD was trained with.
NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}

Builder = Callable[[Path], Path]


# --- parts ---------------------------------------------------------------------------------


def tokenizer() -> CLIPTokenizer:
    """The embedded model's: 2145 tokens, CLIP's algorithm."""
    return CLIPTokenizer.from_pretrained(TOKENIZER)


def text_encoder(projected: bool = False, act: str = "quick_gelu", width: int = HIDDEN) -> Any:
    """A CLIP text encoder; `projected` has the pooled output that SDXL reads too."""
    words = tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act=act,
        # Larger than usual, so that words make a difference without training.
        initializer_range=0.5,
        initializer_factor=1.0,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def vae(latent_channels: int = 4, **options: Any) -> AutoencoderKL:
    """Three levels: latents are a quarter of the pixels."""
    config: dict[str, Any] = {
        "block_out_channels": [16, 16, 32],
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "layers_per_block": 1,
        "latent_channels": latent_channels,
        "norm_num_groups": 8,
        "sample_size": SIZE,
        "scaling_factor": 0.18215,
    }
    built = AutoencoderKL(**config | options)
    with torch.no_grad():
        built.decoder.conv_out.weight *= (
            1.4  # from grey to the range of colours, few of them clipped
        )
    return built


def tiny_vae() -> AutoencoderTiny:
    """Of the same latents as `vae`."""
    return AutoencoderTiny(
        encoder_block_out_channels=(16, 16, 16),
        decoder_block_out_channels=(16, 16, 16),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        upsampling_scaling_factor=2,
    )


def unet(**options: Any) -> UNet2DConditionModel:
    """Two levels with attention to the words in both and in the middle."""
    config: dict[str, Any] = {
        "sample_size": SIZE // 4,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "cross_attention_dim": HIDDEN,
        "norm_num_groups": 8,
    }
    built = UNet2DConditionModel(**config | options)
    with torch.no_grad():
        built.conv_out.weight *= 2  # predictions of about the strength of noise
        for name, weight in built.named_parameters():
            if ".attn2." in name:
                weight *= 2  # words make a difference
    return built


def sdxl_unet(
    words: int = HIDDEN + HIDDEN_2, time_ids: int = 6, **options: Any
) -> UNet2DConditionModel:
    """SDXL's: reads the pooled words and the sizes beside the timestep.

    Args:
        words: width of the encoders' outputs side by side.
        time_ids: numbers beside the picture: 6, or 5 with an aesthetic score.
    """
    config: dict[str, Any] = {
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2],
        "attention_head_dim": [2, 4],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME_IDS_WIDTH,
        "projection_class_embeddings_input_dim": time_ids * TIME_IDS_WIDTH + HIDDEN_2,
        "cross_attention_dim": words,
    }
    return unet(**config | options)


def save(pipeline: DiffusionPipeline, folder: Path, notes: dict[str, Any] | None = None) -> Path:
    """Write the folder; the weights are safetensors."""
    pipeline.save_pretrained(folder)
    if notes is not None:
        (folder / "darkroom.json").write_text(json.dumps(notes))
    return folder


def small_by_default(folder: Path) -> Path:
    """Note 64×64 pixels as a model's default size, at which it is measured when it is loaded.

    A megapixel, the default of most transformers, takes most of a tiny model's time.
    """
    notes = {"defaults": {"width": SIZE, "height": SIZE}}
    (folder / "darkroom.json").write_text(json.dumps(notes))
    return folder


# --- models --------------------------------------------------------------------------------


def _sd_parts(noise_predictor: UNet2DConditionModel, **parts: Any) -> dict[str, Any]:
    return {
        "vae": vae(),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(),
        "unet": noise_predictor,
        "scheduler": PNDMScheduler(**NOISE, skip_prk_steps=True, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
        **parts,
    }


def _sdxl_parts(noise_predictor: UNet2DConditionModel, **parts: Any) -> dict[str, Any]:
    return {
        "vae": vae(scaling_factor=0.13025),
        "text_encoder": text_encoder(),
        "text_encoder_2": text_encoder(projected=True, act="gelu", width=HIDDEN_2),
        "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer(),
        "unet": noise_predictor,
        "scheduler": EulerDiscreteScheduler(**NOISE, steps_offset=1),
        **parts,
    }


def sd1(folder: Path) -> Path:
    """Stable Diffusion 1.x."""
    torch.manual_seed(1)
    return save(StableDiffusionPipeline(**_sd_parts(unet())), folder)


def sd1_inpaint(folder: Path) -> Path:
    """Stable Diffusion 1.x whose UNet also reads the mask and the masked picture."""
    torch.manual_seed(2)
    return save(StableDiffusionInpaintPipeline(**_sd_parts(unet(in_channels=9))), folder)


def sd2(folder: Path) -> Path:
    """Stable Diffusion 2.x at its full size: OpenCLIP's text encoder, v-prediction."""
    torch.manual_seed(3)
    parts = _sd_parts(
        unet(attention_head_dim=[2, 4], use_linear_projection=True),
        text_encoder=text_encoder(act="gelu"),
        scheduler=DDIMScheduler(
            **NOISE,
            prediction_type="v_prediction",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
    )
    return save(StableDiffusionPipeline(**parts), folder)


def sdxl(folder: Path) -> Path:
    """SDXL base: two text encoders, sizes and crops beside the words."""
    torch.manual_seed(4)
    return save(StableDiffusionXLPipeline(**_sdxl_parts(sdxl_unet())), folder)


def sdxl_inpaint(folder: Path) -> Path:
    """SDXL whose UNet also reads the mask and the masked picture."""
    torch.manual_seed(5)
    pipeline = StableDiffusionXLInpaintPipeline(**_sdxl_parts(sdxl_unet(in_channels=9)))
    return save(pipeline, folder)


def sdxl_refiner(folder: Path) -> Path:
    """SDXL's second half: no first text encoder, an aesthetic score instead of a target size."""
    torch.manual_seed(6)
    parts = _sdxl_parts(
        sdxl_unet(words=HIDDEN_2, time_ids=5),
        text_encoder=None,
        tokenizer=None,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    )
    return save(StableDiffusionXLImg2ImgPipeline(**parts), folder)


def lcm(folder: Path) -> Path:
    """A latent consistency model: guidance goes into the UNet as a number, in one row."""
    torch.manual_seed(7)
    parts = _sd_parts(
        unet(time_cond_proj_dim=256),
        scheduler=LCMScheduler(**NOISE, set_alpha_to_one=True, steps_offset=1),
    )
    notes = {
        "defaults": {"num_inference_steps": 4, "guidance_scale": 8.5, "scheduler": "lcm"},
    }
    return save(StableDiffusionPipeline(**parts), folder, notes)


def turbo(folder: Path) -> Path:
    """As SDXL Turbo: one step, no guidance."""
    torch.manual_seed(8)
    scheduler = EulerAncestralDiscreteScheduler(
        **NOISE, steps_offset=1, timestep_spacing="trailing"
    )
    notes = {
        "defaults": {"num_inference_steps": 1, "guidance_scale": 0.0, "scheduler": "euler_a"},
    }
    return save(
        StableDiffusionXLPipeline(**_sdxl_parts(sdxl_unet(), scheduler=scheduler)), folder, notes
    )


def sd3(folder: Path) -> Path:
    """Stable Diffusion 3 without its T5: a transformer, which no loop of ours drives."""
    torch.manual_seed(9)
    transformer = SD3Transformer2DModel(
        sample_size=SIZE // 4,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=HIDDEN + HIDDEN_2,
        caption_projection_dim=32,
        pooled_projection_dim=HIDDEN + HIDDEN_2,
        pos_embed_max_size=32,
    )
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=text_encoder(projected=True),
        tokenizer=tokenizer(),
        text_encoder_2=text_encoder(projected=True, act="gelu", width=HIDDEN_2),
        tokenizer_2=tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )
    return save(pipeline, folder)


BUILDERS: dict[str, Builder] = {
    builder.__name__: builder
    for builder in (sd1, sd1_inpaint, sd2, sdxl, sdxl_inpaint, sdxl_refiner, lcm, turbo, sd3)
}
