"""Groups the tensors of a LoRA file by layer. There are four naming schemes.

    kohya            lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight, ….alpha
    peft             unet.down_blocks.0.attentions.0.proj_in.lora_A.weight
    diffusers        unet.down_blocks.0.attentions.0.proj_in.lora.down.weight
    old diffusers    down_blocks.0.….attn1.processor.to_q_lora.down.weight

Every layer has a `down` of (rank, in, …) and an `up` of (out, rank, …), and changes its weight by
alpha / rank · up · down.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from darkroom.errors import DarkroomError

# A UNet's parts as diffusers names them, and as the original code does (kohya's SDXL files).
_OURS = "down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding|add_embedding"
_SGM = "input_blocks|middle_block|output_blocks|time_embed|label_emb|out_2"
_KEY = re.compile(
    rf"(?P<layer>(?:lora_unet_(?:{_OURS}|{_SGM})|lora_te[12]?_|(?:unet\.)?(?:{_OURS})"
    r"|text_encoder(?:_2)?\.).*?)"
    r"(?:[._]lora(?:\.|_|_linear_layer\.)(?P<side>down|up|A|B)\.weight|\.alpha)"
)

# Part of a key → what the file is instead.
FOREIGN = {
    ".hada_w1": "is a LoHa; only LoRA and LoCon can be used",
    ".lokr_w1": "is a LoKr; only LoRA and LoCon can be used",
    "dora_scale": "is a DoRA; only LoRA and LoCon can be used",
    "lora_magnitude_vector": "is a DoRA; only LoRA and LoCon can be used",
    ".lora_mid.": "is a LoCon with Tucker cores, which cannot be used",
    "base_model.model.": (
        "was saved by peft, which keeps its strength in another file; save it with diffusers' "
        "save_lora_weights"
    ),
    "first_stage_model.": "is a whole checkpoint; it belongs among the models",
    "emb_params": "is a textual inversion; it belongs among the embeddings",
    "clip_g": "is a textual inversion; it belongs among the embeddings",
}


class NotALoraError(DarkroomError, ValueError):
    """The tensors are not those of a LoRA. The message says what they are."""


@dataclass
class Layer:
    """Keys of one layer. Only alpha may be missing."""

    down: str = ""
    up: str = ""
    alpha: str | None = None


def group(keys: Iterable[str]) -> dict[str, Layer]:
    """Group the keys of a file by layer.

    Raises:
        NotALoraError: a key is not of a LoRA for Stable Diffusion, or half of a layer is missing.
    """
    layers: dict[str, Layer] = {}
    for key in keys:
        match = _KEY.fullmatch(key)
        foreign = [reason for part, reason in FOREIGN.items() if part in key]
        if match is None or foreign:
            raise NotALoraError(
                foreign[0] if foreign else f"is no LoRA for Stable Diffusion: it holds {key[:200]}"
            )
        layer = layers.setdefault(match["layer"], Layer())
        match match["side"]:
            case "down" | "A":
                layer.down = key
            case "up" | "B":
                layer.up = key
            case _:
                layer.alpha = key
    for name, layer in layers.items():
        if not (layer.down and layer.up):
            raise NotALoraError(f"is not whole: half of {name} is missing")
    if not layers:
        raise NotALoraError("is empty")
    return layers
