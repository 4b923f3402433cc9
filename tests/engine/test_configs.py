"""The carried configurations describe the published models."""

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers import DDIMScheduler

from darkroom.catalog.listing import CONFIGS
from darkroom.engine.memory import GPU_SHARE
from tests.effort import sampled
from tests.test_docs import README

# Parameters of each part of the published models. A UNet that reads a mask has 5 more channels
# in a first layer of 320 filters of 3×3; the refiner's follows from sgm's sd_xl_refiner.yaml.
VAE = 83_653_863
CLIP_L, CLIP_H, CLIP_G = 123_060_480, 340_387_840, 694_659_840
CLIP_L_PROJECTED, T5 = CLIP_L + 768**2, 4_762_310_656
# Of 16 latent channels, without the convolutions at its ends.
VAE_16 = 83_819_683
QWEN3_4B, QWEN3_8B = 4_022_468_096, 8_190_735_360
PARAMETERS = {
    "sd1": {"unet": 859_520_964, "vae": VAE, "text_encoder": CLIP_L},
    "sd1-inpaint": {"unet": 859_535_364, "vae": VAE, "text_encoder": CLIP_L},
    "sd2-512": {"unet": 865_910_724, "vae": VAE, "text_encoder": CLIP_H},
    "sd2-768": {"unet": 865_910_724, "vae": VAE, "text_encoder": CLIP_H},
    "sd2-inpaint": {"unet": 865_925_124, "vae": VAE, "text_encoder": CLIP_H},
    "sdxl": {
        "unet": 2_567_463_684,
        "vae": VAE,
        "text_encoder": CLIP_L,
        "text_encoder_2": CLIP_G,
    },
    "sdxl-inpaint": {
        "unet": 2_567_478_084,
        "vae": VAE,
        "text_encoder": CLIP_L,
        "text_encoder_2": CLIP_G,
    },
    "sdxl-refiner": {"unet": 2_259_526_660, "vae": VAE, "text_encoder_2": CLIP_G},
}
SD = tuple(PARAMETERS)


def _sd3(transformer: int) -> dict[str, int]:
    encoders = {"text_encoder": CLIP_L_PROJECTED, "text_encoder_2": CLIP_G, "text_encoder_3": T5}
    return {"transformer": transformer, "vae": VAE_16, **encoders}


def _flux(transformer: int) -> dict[str, int]:
    encoders = {"text_encoder": CLIP_L, "text_encoder_2": T5}
    return {"transformer": transformer, "vae": VAE_16, **encoders}


def _klein(transformer: int, encoder: int) -> dict[str, int]:
    return {"transformer": transformer, "vae": 84_046_115, "text_encoder": encoder}


_Z_IMAGE = {"transformer": 6_154_908_736, "vae": VAE_16, "text_encoder": QWEN3_4B}
PARAMETERS |= {
    "sd3-medium": _sd3(2_028_328_000),
    "sd3.5-medium": _sd3(2_243_171_520),
    "sd3.5-large": _sd3(8_056_627_520),
    "flux-dev": _flux(11_901_408_320),
    "flux-kontext": _flux(11_901_408_320),
    "flux-schnell": _flux(11_891_178_560),
    "chroma": {"transformer": 8_899_983_424, "vae": VAE_16, "text_encoder": T5},
    "flux2-klein-4b": _klein(3_875_544_576, QWEN3_4B),
    "flux2-klein-base-4b": _klein(3_875_544_576, QWEN3_4B),
    "flux2-klein-9b": _klein(9_078_581_248, QWEN3_8B),
    "flux2-klein-base-9b": _klein(9_078_581_248, QWEN3_8B),
    "z-image": _Z_IMAGE,
    "z-image-turbo": _Z_IMAGE,
    "qwen-image": {
        "transformer": 20_430_401_088,
        "vae": 126_892_531,
        "text_encoder": 8_292_166_656,
    },
}


def index(name: str) -> dict[str, Any]:
    parts: dict[str, Any] = json.loads((CONFIGS / name / "model_index.json").read_text())
    return {part: value for part, value in parts.items() if isinstance(value, list) and value[0]}


def built(folder: Path, library: str, class_name: str) -> Any:
    """The part without memory for its weights."""
    with torch.device("meta"):
        if library == "diffusers":
            cls = getattr(diffusers, class_name)
            return cls.from_config(cls.load_config(folder))
        cls = getattr(transformers, class_name)
        return cls(cls.config_class.from_pretrained(folder))


def test_every_configuration_is_checked() -> None:
    carried = {path.parent.name for path in CONFIGS.glob("*/model_index.json")}

    assert carried == set(PARAMETERS)


@pytest.mark.parametrize("name", sampled(PARAMETERS, one_in=4))
def test_parts_have_as_many_parameters_as_the_published_ones(name: str) -> None:
    counted = {
        part: sum(value.numel() for value in built(CONFIGS / name / part, *value).parameters())
        for part, value in index(name).items()
        if (CONFIGS / name / part / "config.json").is_file()
    }

    assert counted == PARAMETERS[name]


@pytest.mark.parametrize("name", SD)
def test_another_scheduler_neither_clips_nor_ends_early(name: str) -> None:
    """diffusers' defaults are for pixels; latents go beyond ±1."""
    cls = getattr(diffusers, index(name)["scheduler"][1])
    own = cls.from_pretrained(CONFIGS / name / "scheduler")

    ddim = DDIMScheduler.from_config(own.config)

    assert ddim.config.clip_sample is False
    assert ddim.config.set_alpha_to_one is False
    assert ddim.config.steps_offset == 1
    expected = "v_prediction" if name == "sd2-768" else "epsilon"
    assert ddim.config.prediction_type == expected


def test_the_readme_says_how_much_memory_sdxl_takes() -> None:
    """In float16, but for the VAE on a GPU (`engine/vae.py`); in float32 on a CPU."""
    parameters = sum(PARAMETERS["sdxl"].values())
    for parts, where in (
        (2 * parameters, "This downloads {} GB"),
        (2 * parameters + 2 * VAE, "| weights on a GPU | {} GB"),
        (4 * parameters, "| without a GPU | weights take {} GB"),
    ):
        assert where.format(round(parts / 1e9, 1)) in README
    assert (2 * parameters + 2 * VAE) / GPU_SHARE <= 10e9
    assert "| GPU memory | 10 GB or more: weights may take four fifths of it" in README
