"""What each layer of a network looks at, computed from its input by the layer's own projections.

Slow and plain: head by head, softmax of q·k. To compare `engine/explain` with.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen
from torch import Tensor, nn

JOINT = re.compile(r"(((joint|single)_)?transformer_blocks|layers)\.\d+\.(attn|attention)")


@dataclass
class Plain:
    """What was seen: by call of the network, by layer, (rows, queries, keys)."""

    calls: list[list[Tensor]] = field(default_factory=list)


@contextmanager
def watching(network: nn.Module) -> Iterator[Plain]:
    """Context in which every call of a UNet or a transformer is seen."""
    plain = Plain()

    def begin(*_: Any) -> None:
        plain.calls.append([])

    def see(layer: Any, args: tuple[Any, ...], given: dict[str, Any], _: Any) -> None:
        query, key, mask = projected(type(network).__name__, layer, args, given)
        plain.calls[-1].append(softmax(query, key, mask))

    with ExitStack() as hooks:
        hooks.callback(network.register_forward_pre_hook(begin).remove)
        for name, layer in network.named_modules():
            cross = isinstance(layer, Attention) and layer.is_cross_attention
            if cross or JOINT.fullmatch(name):
                hook = layer.register_forward_hook(see, with_kwargs=True)
                hooks.callback(hook.remove)
        yield plain


def softmax(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over heads of (rows, positions, heads, width): (rows, queries, keys)."""
    made = []
    for head in range(query.shape[2]):
        scores = query[:, :, head] @ key[:, :, head].mT / query.shape[3] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, :].bool(), float("-inf"))
        made.append(scores.softmax(-1))
    return sum(made) / len(made)


def projected(
    network: str, layer: Any, args: tuple[Any, ...], given: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Queries and keys, (rows, positions, heads, width), and which keys may be looked at."""
    hidden = args[0] if args else given["hidden_states"]
    text = given.get("encoder_hidden_states")

    def split(numbers: Tensor, norm: Any) -> Tensor:
        apart = numbers.unflatten(-1, (layer.heads, -1))
        return apart if norm is None else norm(apart)

    if network == "UNet2DConditionModel":
        return split(layer.to_q(hidden), None), split(layer.to_k(text), None), None
    if hasattr(layer, "to_qkv_mlp_proj"):  # FLUX.2's single stream
        both = layer.to_qkv_mlp_proj(hidden)[..., : 3 * layer.inner_dim].chunk(3, -1)
        query, key = split(both[0], layer.norm_q), split(both[1], layer.norm_k)
    else:
        query = split(layer.to_q(hidden), layer.norm_q)
        key = split(layer.to_k(hidden), layer.norm_k)
    if network == "ZImageTransformer2DModel":
        turns = given["freqs_cis"][:, :, None]
        mask = given.get("attention_mask")
        return turned(query, turns), turned(key, turns), mask
    if text is not None:
        words = split(layer.add_q_proj(text), layer.norm_added_q)
        kept = split(layer.add_k_proj(text), layer.norm_added_k)
    rotary = given.get("image_rotary_emb")
    mask = None
    if network == "QwenImageTransformer2DModel":
        picture, said = rotary
        query = apply_rotary_emb_qwen(query, picture, use_real=False)
        key = apply_rotary_emb_qwen(key, picture, use_real=False)
        words = apply_rotary_emb_qwen(words, said, use_real=False)
        kept = apply_rotary_emb_qwen(kept, said, use_real=False)
        known = given.get("encoder_hidden_states_mask")
        if known is not None:
            mask = torch.cat([known.bool(), torch.ones(hidden.shape[:2], dtype=torch.bool)], 1)
        rotary = None
    if text is not None:
        order = -1 if network == "SD3Transformer2DModel" else 1  # SD3 has the picture first
        query = torch.cat([words, query][::order], 1)
        key = torch.cat([kept, key][::order], 1)
    if rotary is not None:
        query = apply_rotary_emb(query, rotary, sequence_dim=1)
        key = apply_rotary_emb(key, rotary, sequence_dim=1)
    return query, key, mask


def turned(numbers: Tensor, turns: Tensor) -> Tensor:
    """Pairs of numbers as complex ones, turned."""
    pairs = torch.view_as_complex(numbers.float().reshape(*numbers.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(3).type_as(numbers)
