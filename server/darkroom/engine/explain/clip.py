"""How much the embeddings of a CLIP text encoder hold of each token."""

from typing import Any

import torch
from torch import Tensor

from darkroom.engine.attention_maps import rollout
from darkroom.engine.explain.attention import Attention, watched


def shares(encoder: Any, ids: Tensor, layers: int, **options: Any) -> Tensor:
    """How much each position of a CLIP text encoder's output has from each token: (n, n).

    Args:
        ids: of one window, (1, n).
        layers: after how many the output is taken.
        options: of the call.
    """
    seen: list[Tensor] = []

    def see(_row: int, attention: Attention) -> None:
        seen.append(torch.cat([weights for _, weights in attention.weights()]))

    blocks = getattr(encoder, "text_model", encoder).encoder.layers
    with watched([block.self_attn for block in blocks], see):
        encoder(ids, **options)
    return rollout([weights[None, None] for weights in seen[:layers]])[0]
