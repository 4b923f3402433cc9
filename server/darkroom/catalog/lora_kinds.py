"""Which kind of network a LoRA is for, told by the names of its layers."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

UNET = "unet"
# Kind, as in `families.Family.loras` → what people call it.
TITLES: Mapping[str, str] = {
    "auraflow": "AuraFlow",
    "sd3": "Stable Diffusion 3",
    "flux": "FLUX.1",
    "flux2": "FLUX.2",
    "z-image": "Z-Image",
    "qwen-image": "Qwen-Image",
}

# A UNet's parts as diffusers names them, and as the original code does (kohya's SDXL files).
_OURS = (
    "down_blocks|mid_block|up_blocks|conv_in|conv_out|conv_norm_out|time_embedding|add_embedding"
)
_SGM = "input_blocks|middle_block|output_blocks|time_embed|label_emb|out_2"
_UNET = re.compile(
    rf"(?:lora_unet_(?:{_OURS}|{_SGM})|(?:unet\.|lycoris_|base_model\.model\.)?(?:{_OURS})).*"
)
_TEXT = re.compile(r"(?:lora_te[12]?_|text_encoder(?:_2)?\.).*")

# Transformers' layers, with `_` for every dot, in diffusers' names and in the original code's.
_PREFIX = re.compile(
    r"(?:transformer|diffusion_model|base_model\.model)\.|lora_(?:unet|transformer)_|lycoris_"
)
_ATTENTION = "attn_(?:to_[qkv]|to_out_0|add_[qkv]_proj|to_add_out|norm_(?:added_)?[qk])"
_GATED = rf"{_ATTENTION}|ff(?:_context)?_net_(?:0_proj|2)|norm1(?:_context)?_linear"
_TIME = "embedder_linear_[12]"
_ENDS = "x_embedder|context_embedder|norm_out_linear|proj_out"
_ORIGINAL = (
    r"double_blocks_\d+_(?:img|txt)_(?:attn_(?:qkv|proj)|mlp_[02])|single_blocks_\d+_linear[12]"
)
_ORIGINAL_ENDS = (
    "img_in|txt_in|(?:time|vector|guidance)_in_(?:in|out)_layer"
    "|final_layer_(?:linear|adaLN_modulation_1)"
)
_TRANSFORMERS: Mapping[str, re.Pattern[str]] = {
    "auraflow": re.compile(
        rf"(?:joint|single)_transformer_blocks_\d+_(?:{_ATTENTION}|norm1(?:_context)?_linear"
        r"|ff(?:_context)?_(?:linear_[12]|out_projection))"
        rf"|pos_embed_proj|time_step_proj_linear_[12]|{_ENDS}"
    ),
    "sd3": re.compile(
        rf"transformer_blocks_\d+_(?:{_GATED}|attn2_to_(?:[qkv]|out_0))"
        rf"|pos_embed_proj|time_text_embed_(?:timestep|text)_{_TIME}|{_ENDS}"
    ),
    "flux": re.compile(
        rf"transformer_blocks_\d+_(?:{_GATED})"
        r"|single_transformer_blocks_\d+_(?:attn_to_[qkv]|proj_mlp|proj_out|norm_linear)"
        rf"|time_text_embed_(?:timestep|text|guidance)_{_TIME}|{_ENDS}|{_ORIGINAL}"
        r"|double_blocks_\d+_(?:img|txt)_mod_lin|single_blocks_\d+_modulation_lin"
        rf"|{_ORIGINAL_ENDS}|(?:double|single)_blocks_\d+_processor_(?:proj|qkv)_lora[12]?"
        r"|distilled_guidance_layer_\w+"
    ),
    "flux2": re.compile(
        rf"transformer_blocks_\d+_(?:{_ATTENTION}|ff(?:_context)?_linear_(?:in|out))"
        r"|single_transformer_blocks_\d+_attn_(?:to_qkv_mlp_proj|to_out)"
        r"|(?:double_stream_modulation_(?:img|txt)|single_stream_modulation)_lin(?:ear)?"
        rf"|time_guidance_embed_(?:timestep|guidance)_{_TIME}|{_ENDS}|{_ORIGINAL}|{_ORIGINAL_ENDS}"
    ),
    "z-image": re.compile(
        r"(?:layers|noise_refiner|context_refiner)_\d+_(?:attention_(?:to_[qkv]|to_out_0|qkv|out)"
        r"|feed_forward_w[123]|adaLN_modulation_[01])"
        r"|t_embedder_mlp_[02]|cap_embedder_1|all_x_embedder_[\d_-]+"
        r"|all_final_layer_[\d_-]+_(?:linear|adaLN_modulation_1)"
    ),
    "qwen-image": re.compile(
        rf"transformer_blocks_\d+_(?:{_ATTENTION}|(?:img|txt)_(?:mlp_net_(?:0_proj|2)|mod_1))"
        rf"|img_in|txt_in|norm_out_linear|proj_out|time_text_embed_timestep_{_TIME}"
    ),
}
# Layers that read the numbers that go from block to block.
_INNER = re.compile(
    r".*(?:attn2?_to_[qkv]|attention_to_[qkv]|attention_qkv|img_attn_qkv|to_qkv_mlp_proj"
    r"|single_blocks_\d+_linear1)"
)


def kinds(layers: Iterable[str]) -> tuple[str, ...]:
    """The kinds of network that may have these layers; several where only their widths differ.

    Layers of text encoders do not count, unless there are no others: then it is a UNet's.

    Raises:
        ValueError: no kind has all of them; says one that is not known.
    """
    return _kinds(tuple(layers))


@lru_cache(maxsize=8)  # most files of one trainer for one family have the same layers
def _kinds(layers: tuple[str, ...]) -> tuple[str, ...]:
    others = [layer for layer in layers if not _TEXT.fullmatch(layer)]
    if all(map(_UNET.fullmatch, others)):
        return (UNET,)
    names = {layer: _plain(layer) for layer in others}
    found = tuple(
        kind
        for kind, pattern in _TRANSFORMERS.items()
        if all(map(pattern.fullmatch, names.values()))
    )
    if not found:
        patterns = _TRANSFORMERS.values()
        strange = (
            layer
            for layer, name in names.items()
            if not any(pattern.fullmatch(name) for pattern in patterns)
        )
        raise ValueError(next(strange, others[0]))
    return found


def inner_width(inputs: Mapping[str, int]) -> int | None:
    """The width of a transformer by how many numbers its layers read; None if none shows it."""
    widths = (width for name, width in inputs.items() if _INNER.fullmatch(_plain(name)))
    return next(widths, None)


def _plain(layer: str) -> str:
    """A layer's name without where it was saved from, with `_` for every dot."""
    prefix = _PREFIX.match(layer)
    return layer[prefix.end() if prefix else 0 :].replace(".", "_")
