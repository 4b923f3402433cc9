"""Single-file checkpoints: recognises the architecture of a safetensors file by its header.

The tensor names are those of the original repositories, by which diffusers recognises them too
(`diffusers.loaders.single_file_utils.infer_diffusers_model_type`). Where diffusers compares widths,
the kind of text encoder is compared here, so that models of other sizes are recognised as well.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.catalog import weight_files
from darkroom.catalog.model_spec import INPAINTING, check_channels
from darkroom.catalog.weight_files import SCALES, Header, UnusableError, numbers_of

UNET = "model.diffusion_model."
FIRST_LAYER = UNET + "input_blocks.0.0.weight"
VAE = "first_stage_model."

# How a UNet's names begin in files of their own.
BARE = ("diffusion_model.", "")

CLIP_L = "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"
CLIP_L_OLD = "cond_stage_model.transformer.embeddings.position_embedding.weight"
CLIP_H = "cond_stage_model.model.token_embedding.weight"
SDXL_CLIP_L = "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight"
SDXL_CLIP_G = "conditioner.embedders.1.model.positional_embedding"
REFINER_CLIP_G = "conditioner.embedders.0.model.text_projection"

# Metadata in which trainers and converters say what a UNet predicts, and their words for it, in
# lower case without signs (https://github.com/Stability-AI/ModelSpec).
PREDICTION_KEYS = ("modelspec.prediction_type", "prediction_type", "modelspec.predict_key")
PREDICTIONS = {
    **dict.fromkeys(("v", "vpred", "vprediction", "vparameterization", "velocity"), "v_prediction"),
    **dict.fromkeys(("epsilon", "eps", "epsprediction", "noise"), "epsilon"),
}
ZERO_SNR_KEYS = ("ztsnr", "modelspec.zsnr", "ss_zero_terminal_snr", "zero_terminal_snr")

# Prefix or part of a tensor's name → what the file is.
FOREIGN = (
    (("lora_", ".lora", "hada_w", "lokr_w"), "is a LoRA, not a model"),
    (("emb_params", "clip_l", "clip_g", "t5xxl"), "is a textual inversion, not a model"),
    (("control_model.", "controlnet_", "control_"), "is a ControlNet, not a model"),
    (("down_blocks.", "mid_block."), "is the UNet or VAE of a diffusers folder, without the rest"),
    (
        ("double_blocks.", "joint_blocks.", "transformer_blocks.", "context_refiner."),
        "holds a diffusion transformer, which is read from a diffusers folder only",
    ),
    (("encoder.down.", "decoder.up.", VAE), "is a VAE: it belongs in the folder vae"),
    (("model.layers.", "transformer.h.", "lm_head."), "is a language model"),
)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file.

    Attributes:
        config: name of the embedded configuration that describes it.
        scaled: whether its UNet's weights are in fp8, each with a scale beside it.
        scheduler: settings from its metadata that override the configuration's scheduler.
        numbers: how many its parts have that are loaded; its text encoders are one.
    """

    config: str
    has_vae: bool
    scaled: bool
    scheduler: Mapping[str, Any]
    numbers: Mapping[str, int]


def recognise(header: Header, name: str) -> Checkpoint:
    """Recognise the architecture of a checkpoint.

    Args:
        name: of its file.

    Raises:
        UnusableError: it is not a checkpoint that can be served, or damaged.
    """
    if FIRST_LAYER not in header.shapes:
        raise UnusableError(f"{name} {_foreign(header)}")
    try:
        channels = header.shapes[FIRST_LAYER][1]
    except IndexError:
        raise UnusableError(f"{name} is damaged: its first layer is no convolution") from None
    check_channels(channels)
    config = _kind(header)
    scheduler = _scheduler(header)
    if channels == INPAINTING:
        if config == "sdxl-refiner":
            raise UnusableError("it is a refiner that reads a mask, which is not known")
        config = f"{config}-inpaint"
    elif config == "sd2":
        config = _second_version(header)
    has_vae = any(name.startswith(VAE) for name in header.shapes)
    return Checkpoint(config, has_vae, _is_scaled(header, name), scheduler, _numbers(header))


def _is_scaled(header: Header, name: str) -> bool:
    """Whether the UNet's weights have scales; `UnusableError` if other weights have some."""
    weight_files.check_scales(header)
    scales = [key for key in header.shapes if key.endswith(SCALES)]
    for key in scales:
        if not key.startswith(UNET):
            raise UnusableError(
                f"{name} is scaled fp8 also outside of its UNet ({key}), which is not read; take "
                "the file in fp16"
            )
    return bool(scales)


def _numbers(header: Header) -> dict[str, int]:
    found = {"unet": numbers_of(header, UNET), "vae": numbers_of(header, VAE)}
    return {**found, "text_encoder": numbers_of(header) - sum(found.values())}


def _kind(header: Header) -> str:
    """The architecture, recognised by the text encoder."""
    names = header.shapes
    if SDXL_CLIP_L in names and SDXL_CLIP_G in names:
        return "sdxl"
    if REFINER_CLIP_G in names:
        return "sdxl-refiner"
    if CLIP_H in names:
        if UNET + "label_emb.0.0.weight" in names:
            raise UnusableError("it is an unCLIP, which draws from a picture's embedding")
        return "sd2"
    if CLIP_L in names:
        return "sd1"
    if CLIP_L_OLD in names:
        raise UnusableError(
            "its text encoder has names that diffusers does not read; saving it again with a "
            "current program mends that"
        )
    raise UnusableError("it holds a UNet but no text encoder that is known")


def _second_version(header: Header) -> str:
    """The configuration of an SD 2 model: at 512 pixels it predicts noise, at 768 velocity.

    Their tensors are alike. The metadata may say which it is
    (https://github.com/Stability-AI/ModelSpec); the default is 768, as in diffusers.
    """
    says_512 = header.metadata.get("modelspec.architecture") == "stable-diffusion-v2-512"
    predicts_noise = _prediction(header) == "epsilon"
    return "sd2-512" if says_512 or predicts_noise else "sd2-768"


def _scheduler(header: Header) -> dict[str, Any]:
    if "edm_mean" in header.shapes or "edm_vpred.sigma_max" in header.shapes:
        raise UnusableError("it was trained on EDM's noise levels, for which no scheduler is here")
    metadata = header.metadata
    if _prediction(header) != "v_prediction":
        return {}
    zero_snr = "ztsnr" in header.shapes or any(_is_set(metadata.get(key)) for key in ZERO_SNR_KEYS)
    return {"prediction_type": "v_prediction"} | (
        {"rescale_betas_zero_snr": True} if zero_snr else {}
    )


def _prediction(header: Header) -> str | None:
    """What a checkpoint says that its UNet predicts, in diffusers' word; None if it does not."""
    if "v_pred" in header.shapes:  # an empty tensor by which trainers of SDXL mark it
        return "v_prediction"
    for key in PREDICTION_KEYS:
        said = PREDICTIONS.get(re.sub(r"[^a-z]", "", header.metadata.get(key, "").lower()))
        if said is not None:
            return said
    return "v_prediction" if _is_set(header.metadata.get("ss_v_parameterization")) else None


def _is_set(text: str | None) -> bool:
    """Whether a setting in metadata, written by Python or JSON, is on."""
    return (text or "").strip().lower() in ("true", "1", "yes")


def _foreign(header: Header) -> str:
    if any(kept + FIRST_LAYER.removeprefix(UNET) in header.shapes for kept in BARE):
        return "is a UNet alone, without the text encoder and VAE of its model"
    for marks, what in FOREIGN:
        for name in header.shapes:
            if name.startswith(marks) or any(f".{mark.strip('.')}" in name for mark in marks):
                return what
    if any(name.startswith(UNET) for name in header.shapes):
        return "holds a diffusion model that is not Stable Diffusion"
    return "is no Stable Diffusion checkpoint"
