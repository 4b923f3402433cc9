"""Records where a UNet's cross-attention looks."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from diffusers.models.attention_processor import Attention as Layer

from darkroom.engine.attention_maps import grid
from darkroom.engine.explain.attention import Attention, watched
from darkroom.engine.sample import UNetSample


def explained(unet: Any, samples: Sequence[UNetSample]) -> AbstractContextManager[None]:
    """Context of one call of a UNet for samples, in which what explains some of them is recorded.

    Of a guided sample that is the row of its prompt, which comes last.
    """
    rows = [
        sample if last and sample.recorder is not None else None
        for sample in samples
        for last in (*[False] * (sample.row_count - 1), True)
    ]
    if not any(rows):
        return nullcontext()

    def see(row: int, attention: Attention) -> None:
        sample = rows[row]
        if sample is None or sample.recorder is None or sample.recorder.failure is not None:
            return
        with sample.recorder.attempt():
            height, width = sample.latents.shape[-2:]
            cells = grid((height, width), attention.query.shape[1])
            # Longer prompts may be in the call, and then this one is padded.
            sample.recorder.see(attention, cells, keys=slice(sample.recorder.positions))

    for sample in samples:
        if sample.recorder is not None:
            sample.recorder.begin()
    layers = [
        module
        for module in unet.modules()
        if isinstance(module, Layer) and module.is_cross_attention
    ]
    return watched(layers, see)
