"""The noise predictor: a UNet that learns to undo noise in latents, told what they show.

It predicts v = sqrt(ā)·noise − sqrt(1−ā)·latent (Salimans and Ho, arXiv 2202.00512) on a schedule
whose last step is pure noise (Lin et al., arXiv 2305.08891). The text comes in by cross-attention;
one caption in ten is dropped, so that guidance has something to steer away from
(Ho and Salimans, arXiv 2207.12598).
"""

import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from training import loop, text
from training.data import BACKGROUNDS, SIZE, Subject, compose, draw
from training.vae import to_tensor

STEPS = 3_300
BATCH = 32
PEAK_LR = 1e-3
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


@torch.no_grad()
def encode_all(
    vae: AutoencoderKL, subjects: tuple[Subject, ...], cache: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """Every subject on every background, encoded once.

    Returns:
        Means and standard deviations, each (subjects, backgrounds, 4, 16, 16), not yet scaled.
    """
    if cache.exists():
        stored = torch.load(cache, weights_only=True)
        return stored["mean"], stored["std"]
    means, stds = [], []
    for subject in tqdm(subjects, "latents", mininterval=5):
        rgba = subject.rgba()
        batch = torch.stack([to_tensor(compose(rgba, rgb)) for rgb in BACKGROUNDS.values()])
        posterior = vae.encode(batch.to(vae.device)).latent_dist
        means.append(posterior.mean.cpu())
        stds.append(posterior.std.cpu())
    mean, std = torch.stack(means), torch.stack(stds)
    loop.save(cache, {"mean": mean, "std": std})
    return mean, std


def train(
    subjects: tuple[Subject, ...], vae: AutoencoderKL, tokenizer: CLIPTokenizer, runs: Path
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Train noise predictor and text encoder together; return their averaged weights."""
    device = loop.device()
    mean, std = encode_all(vae, subjects, runs / "latents.pt")
    scale = 1 / mean.std().item()
    vae.register_to_config(scaling_factor=scale)

    torch.manual_seed(0)
    unet = build().to(device, memory_format=torch.channels_last)
    encoder = text.train(subjects, mean * scale, tokenizer, runs / "text.pt")
    alphas = build_scheduler().alphas_cumprod.to(device)  # (1000,)

    def loss(step: int) -> torch.Tensor:
        rng = random.Random(step)
        generator = torch.Generator().manual_seed(step)
        which, where, captions = draw(subjects, BATCH, rng)
        captions = ["" if rng.random() < CAPTION_DROPOUT else said for said in captions]
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")

        shape = (BATCH, *mean.shape[2:])  # (B, 4, 16, 16)
        latents = mean[which, where] + std[which, where] * torch.randn(shape, generator=generator)
        latents = (latents * scale).to(device, memory_format=torch.channels_last)
        noise = torch.randn(shape, generator=generator).to(device)
        uniform = torch.rand(BATCH, generator=generator)
        timesteps = (len(alphas) * uniform**TIMESTEP_POWER).long().to(device)
        signal = alphas[timesteps].sqrt().view(-1, 1, 1, 1)
        spread = (1 - alphas[timesteps]).sqrt().view(-1, 1, 1, 1)

        with loop.mixed_precision():
            states = encoder(tokens.input_ids.to(device)).last_hidden_state  # (B, 77, WIDTH)
            predicted = unet(signal * latents + spread * noise, timesteps, states).sample
        return F.mse_loss(predicted.float(), signal * noise - spread * latents)

    modules: dict[str, nn.Module] = {"unet": unet, "text_encoder": encoder}
    average = loop.train(
        name="noise predictor",
        modules=modules,
        loss=loss,
        steps=STEPS,
        peak_lr=PEAK_LR,
        checkpoint=runs / "noise_predictor.pt",
    )
    for name, module in modules.items():
        module.load_state_dict(average.weights[name])
        module.eval().requires_grad_(False)
    return unet, encoder
