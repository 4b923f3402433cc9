"""The noise predictor: a UNet that learns to undo noise in latents, told what they show.

It predicts v = sqrt(ā)·noise − sqrt(1−ā)·latent (Salimans and Ho, arXiv 2202.00512) on a schedule
whose last step is pure noise (Lin et al., arXiv 2305.08891). The text comes in by cross-attention;
one caption in ten is dropped, so that guidance has something to steer away from
(Ho and Salimans, arXiv 2207.12598).
"""

import random
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from training import loop, text
from training.captions import Captions
from training.data import SIZE
from training.latents import Latents

STEPS, BATCH, ADAM_RATE, DECAY = 12_000, 64, 1e-3, 0.999
CAPTION_DROPOUT = 0.1
TIMESTEP_POWER = 0.7  # below 1: more of the noisy end, where it is decided what the picture shows
BLOCKS = (64, 128, 224)  # attention only below 16×16, where the grid is small


def build() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=BLOCKS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text.WIDTH,
        attention_head_dim=4,  # diffusers reads this as the number of heads
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        steps_offset=1,  # as pipelines demand; trailing spacing does not use it
        clip_sample=False,
    )


def train(
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    captions: Captions,
    latents: Latents,
    runs: Path,
    budget_s: float | None,
) -> None:
    """Train the UNet, with the text encoder as it is; leaves the averaged weights in `unet`."""
    device = loop.device()
    unet.to(device, memory_format=torch.channels_last).train().requires_grad_(True)
    encoder.to(device).eval().requires_grad_(False)
    alphas = build_scheduler().alphas_cumprod.to(device)  # (1000,)

    def loss(step: int, _done: float) -> torch.Tensor:
        rng = random.Random(step)
        generator = torch.Generator().manual_seed(step)
        scenes, said = captions.batch(rng, BATCH)
        prompts = ["" if rng.random() < CAPTION_DROPOUT else caption for caption in said]
        clean = latents.of(scenes).to(memory_format=torch.channels_last)  # (B, 4, 16, 16)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        uniform = torch.rand(BATCH, generator=generator)
        timesteps = (len(alphas) * uniform**TIMESTEP_POWER).long().to(device)
        signal = alphas[timesteps].sqrt().view(-1, 1, 1, 1)
        spread = (1 - alphas[timesteps]).sqrt().view(-1, 1, 1, 1)
        with loop.mixed_precision():
            states = encoder(text.tokens(tokenizer, prompts)).last_hidden_state  # (B, 77, WIDTH)
            predicted = unet(signal * clean + spread * noise, timesteps, states).sample
        return F.mse_loss(predicted.float(), signal * noise - spread * clean)

    average = loop.train(
        name="noise predictor",
        modules={"unet": unet},
        loss=loss,
        steps=STEPS,
        adam_rate=ADAM_RATE,
        checkpoint=runs / "noise_predictor.pt",
        decay=DECAY,
        budget_s=budget_s,
    )
    unet.load_state_dict(average.weights["unet"])
    unet.eval().requires_grad_(False)
