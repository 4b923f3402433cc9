"""Sees a network's attention while it runs. What the network computes is what it is without."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

MAX_NUMBERS = 2**24  # of one part of an attention matrix, over all heads: 64 MiB


@dataclass(frozen=True)
class Attention:
    """What one layer's attention was given for one row of a call.

    Attributes:
        query: (heads, queries, width), after all that the layer does to it.
        key: (heads, keys, width), the same.
        mask: of what may be looked at, broadcastable to (heads, queries, keys): booleans, or
            numbers that are added; None where everything may.
        scale: of the products.
    """

    query: Tensor
    key: Tensor
    mask: Tensor | None
    scale: float

    def weights(self, queries: slice = slice(None)) -> Iterator[tuple[slice, Tensor]]:
        """Softmax of q·k, the mean over the heads, of some queries: float32, in parts of them.

        Yields which queries, counted from the first one asked for, and (queries, keys).
        """
        query, key = self.query[:, queries].float(), self.key.float()
        mask = self.mask
        if mask is not None and mask.shape[-2] > 1:
            mask = mask[..., queries, :]
        heads, count, _ = query.shape
        most = max(1, MAX_NUMBERS // (heads * key.shape[1]))
        for start in range(0, count, most):
            part = slice(start, min(start + most, count))
            scores = query[:, part] @ key.mT * self.scale
            if mask is not None:
                own = mask if mask.shape[-2] == 1 else mask[..., part, :]
                if own.dtype == torch.bool:
                    scores.masked_fill_(~own, float("-inf"))
                else:
                    scores += own
            yield part, scores.softmax(-1).mean(0)


Seen = Callable[[int, Attention], None]  # the row, and what its attention was given


@contextmanager
def watched(layers: Iterable[nn.Module], see: Seen) -> Iterator[None]:
    """Context in which `see` is called for each row that passes one of the layers.

    Several calls in a context are parts of one: their rows are counted on. All attention of
    diffusers' and transformers' layers goes through `scaled_dot_product_attention`, so what is
    seen there is what the layer has made of its input: projected, normed and rotated.
    """
    with ExitStack() as stack:
        watch = _Watch(see)
        for layer in layers:
            for hook in (
                layer.register_forward_pre_hook(watch.enter),
                layer.register_forward_hook(watch.leave, always_call=True),
            ):
                stack.callback(hook.remove)
        stack.enter_context(watch)
        yield


class _Watch(TorchFunctionMode):
    def __init__(self, see: Seen) -> None:
        super().__init__()
        self._see = see
        self._layer: nn.Module | None = None
        self._rows: dict[nn.Module, int] = {}  # seen so far, by layer

    def enter(self, layer: nn.Module, _: object) -> None:
        self._layer = layer

    def leave(self, *_: object) -> None:
        self._layer = None

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        if func is functional.scaled_dot_product_attention and self._layer is not None:
            self._look(self._layer, *args, **given)
        return func(*args, **given)

    def _look(
        self,
        layer: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,  # noqa: ARG002
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,  # noqa: ARG002
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        """Take apart a call's arguments: query is (rows, heads, queries, width)."""
        first = self._rows.get(layer, 0)
        self._rows[layer] = first + len(query)
        if enable_gqa:  # several heads share a key
            key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        if is_causal:
            attn_mask = torch.ones(
                query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device
            ).tril()
        if attn_mask is not None:
            attn_mask = (
                attn_mask.expand(len(query), *attn_mask.shape[-3:])
                if (attn_mask.ndim == 4)
                else attn_mask.expand(len(query), 1, *attn_mask.shape[-2:])
            )
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        for row in range(len(query)):
            mask = None if attn_mask is None else attn_mask[row]
            self._see(first + row, Attention(query[row], key[row], mask, factor))
