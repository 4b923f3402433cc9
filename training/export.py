"""Writing tintype down: fp16 weights in the diffusers folder format, card, licence, notes."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from training import noise_predictor
from training.data import BACKGROUNDS, SIZE, Subject, compose
from training.vae import to_tensor

BESIDE = Path(__file__).parent
MAX_BYTES = 40_000_000

NOTES = {
    "description": "The embedded model: 3D emoji of common things at 128×128.",
    "defaults": {
        "width": SIZE,
        "height": SIZE,
        "num_inference_steps": 20,
        "guidance_scale": 3.0,
        "scheduler": "ddim",
    },
    "limits": {"min_side": 64, "max_side": 256, "max_pixels": 160 * 160},
}


def preview_matrix(vae: AutoencoderKL, subjects: tuple[Subject, ...]) -> list[list[float]]:
    """The linear map from scaled latents to colours with the least squared error.

    Returns:
        A row a latent channel and a row of offsets, each red, green, blue in [-1, 1].
    """
    rows, colours = [], []
    rgbs = list(BACKGROUNDS.values())
    for number, subject in enumerate(subjects[::4]):
        picture = to_tensor(compose(subject.rgba(), rgbs[number % len(rgbs)]))[None]
        with torch.no_grad():
            latents = vae.encode(picture).latent_dist.mean * vae.config.scaling_factor
        side = latents.shape[-1]
        rows.append(latents[0].permute(1, 2, 0).reshape(side * side, -1).numpy())
        small = torch.nn.functional.adaptive_avg_pool2d(picture, side)
        colours.append(small[0].permute(1, 2, 0).reshape(side * side, 3).numpy())
    inputs = np.concatenate(rows)
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1), inputs.dtype)], axis=1)
    solution, *_ = np.linalg.lstsq(inputs, np.concatenate(colours), rcond=None)
    return [[round(float(value), 5) for value in row] for row in solution]


def card(subjects: tuple[Subject, ...]) -> str:
    """The model's card, with what it was shown often and what seldom."""
    often = sorted(subject.name for subject in subjects if subject.weight > 1)
    seldom = sorted(subject.name for subject in subjects if subject.weight == 1)
    text = (BESIDE / "card.md").read_text()
    return text.replace("{often}", ", ".join(often)).replace("{seldom}", ", ".join(seldom))


def save(
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    vae: AutoencoderKL,
    subjects: tuple[Subject, ...],
    folder: Path,
) -> None:
    """Write the model folder anew.

    Raises:
        ValueError: the weights are over what a repository should carry.
    """
    notes = {**NOTES, "latent_rgb": preview_matrix(vae.cpu(), subjects)}
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=encoder.cpu().half(),
        tokenizer=tokenizer,
        unet=unet.cpu().half(),
        scheduler=noise_predictor.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    if folder.exists():
        shutil.rmtree(folder)
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "darkroom.json").write_text(json.dumps(notes, indent=2) + "\n")
    (folder / "README.md").write_text(card(subjects))
    shutil.copy(BESIDE / "MODEL_LICENSE", folder / "LICENSE")
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    if size > MAX_BYTES:
        raise ValueError(f"the weights take {size} bytes, more than {MAX_BYTES}")
