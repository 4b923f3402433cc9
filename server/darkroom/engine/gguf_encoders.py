"""Text encoders from GGUF files: llama.cpp's names of tensors, and weights that are unpacked.

transformers reads such files too, but into 32 bits all at once (19 GB for T5 XXL).
"""

import re
from collections.abc import Mapping

import torch
from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

T5 = {
    "token_embd": "shared",
    "enc.output_norm": "encoder.final_layer_norm",
    "attn_q": "layer.0.SelfAttention.q",
    "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "attn_norm": "layer.0.layer_norm",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
    "ffn_norm": "layer.1.layer_norm",
}
QWEN3 = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
BLOCK = re.compile(r"(?:enc\.)?blk\.(?P<number>\d+)\.(?P<layer>\w+)")


def unpacked(packed: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The weights of a T5 or a Qwen3 under transformers' names.

    Raises:
        KeyError: neither of them has a tensor of that name.
    """
    t5 = any(name.startswith("enc.") for name in packed)
    return {
        _name(name, t5): dequantize_gguf_tensor(value).to(dtype) for name, value in packed.items()
    }


def _name(name: str, t5: bool) -> str:
    table, blocks = (T5, "encoder.block") if t5 else (QWEN3, "model.layers")
    layer, _, kind = name.rpartition(".")
    block = BLOCK.fullmatch(layer)
    if block is None:
        return f"{table[layer]}.{kind}"
    return f"{blocks}.{block['number']}.{table[block['layer']]}.{kind}"
