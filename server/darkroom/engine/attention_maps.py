"""Where a UNet looks for each token of its prompt, and which tokens its embeddings came from."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F

Size = tuple[int, int]


class CrossAttention:
    """Looks at a UNet's cross-attention while it runs. The UNet's output is what it is without.

    The attention of each layer is computed a second time from what the layer was given: softmax of
    q·k, the mean over its heads. So nothing depends on how the layer itself computes it.

    Args:
        unet: the network; its layers are left as they were at the end of `watched`.
        latents: height and width of what it denoises.
    """

    def __init__(self, unet: nn.Module, latents: Size) -> None:
        self._unet, self._latents = unet, latents
        self._seen: list[Tensor] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Context in which each call's attention is kept until `take`."""
        with ExitStack() as hooks:
            for module in self._unet.modules():
                if isinstance(module, Attention) and module.is_cross_attention:
                    hook = module.register_forward_hook(self._look, with_kwargs=True)
                    hooks.callback(hook.remove)
            yield

    def take(self) -> Tensor:
        """The attention since the last call: (rows, tokens, height, width), float32.

        The layers' maps are enlarged to the largest of their grids and summed, as in DAAM
        (arXiv 2210.04885). Over all tokens a cell has as much as there were layers.
        """
        seen, self._seen = self._seen, []
        height, width = max((layer.shape[-2:] for layer in seen), key=math.prod)
        return torch.stack([enlarged(layer, (height, width)) for layer in seen]).sum(0)

    def _look(
        self, layer: Attention, args: tuple[Tensor, ...], given: dict[str, Any], _: object
    ) -> None:
        hidden, words = args[0], given["encoder_hidden_states"]
        if layer.norm_cross:
            words = layer.norm_encoder_hidden_states(words)
        query, key = (
            layer.head_to_batch_dim(part) for part in (layer.to_q(hidden), layer.to_k(words))
        )
        weights = layer.get_attention_scores(query, key)  # (rows × heads, cells, tokens)
        per_row = weights.unflatten(0, (-1, layer.heads)).float().mean(1)
        self._seen.append(per_row.mT.unflatten(-1, grid(self._latents, per_row.shape[1])))


def grid(latents: Size, cells: int) -> Size:
    """Height and width of a layer that has so many cells: those of the latents, halved and halved.

    ValueError: no layer has as many.
    """
    height, width = latents
    while height * width > cells:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != cells:
        raise ValueError(f"latents of {latents} have no layer of {cells} cells")
    return height, width


def enlarged(maps: Tensor, size: Size) -> Tensor:
    """Maps (rows, tokens, h, w) at another size."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def rollout(attentions: Sequence[Tensor]) -> Tensor:
    """How much each position of a text encoder's output has from each token: (rows, out, token).

    Each layer passes on one half of what it was given, by its residual connection, and mixes in the
    other half by its attention (attention rollout, arXiv 2005.00928). Rows sum to 1.

    Args:
        attentions: of each layer, first to last: (rows, heads, positions, positions).
    """
    positions = attentions[0].shape[-1]
    result = torch.eye(positions, device=attentions[0].device).expand(len(attentions[0]), -1, -1)
    for layer in attentions:
        result = (layer.float().mean(1) @ result + result) / 2
    return result


def carried_back(maps: Tensor, shares: Tensor) -> Tensor:
    """Maps of the tokens that the network's embeddings were made of: (rows, tokens, h, w).

    Args:
        maps: of each embedding, from `CrossAttention.take`.
        shares: how much each embedding has from each token, from `rollout`.
    """
    return torch.einsum("rohw,rot->rthw", maps, shares)
