"""Records where a UNet's cross-attention looks."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from diffusers.models.attention_processor import Attention as Layer

from darkroom.engine.attention_maps import grid
from darkroom.engine.explain.attention import Attention
from darkroom.engine.explain.recorder import Recorder, recorded
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

    def see(sample: UNetSample, recorder: Recorder, attention: Attention) -> None:
        height, width = sample.latents.shape[-2:]
        cells = grid((height, width), attention.query.shape[1])
        # Longer prompts may be in the call, and then this one is padded.
        recorder.see(attention, cells, keys=slice(recorder.positions))

    if not any(rows):
        return nullcontext()
    layers = [
        module
        for module in unet.modules()
        if isinstance(module, Layer) and module.is_cross_attention
    ]
    return recorded(layers, rows, see)
