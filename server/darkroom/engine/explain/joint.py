"""Records where the joint attention of a transformer looks: its rows hold a picture and a text."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF
from torch import nn

from darkroom.engine.attention_maps import Size
from darkroom.engine.calls import Call
from darkroom.engine.explain import texts
from darkroom.engine.explain.attention import Attention
from darkroom.engine.explain.recorder import Recorder, recorded
from darkroom.engine.explain.tokens import Reading

# Layers that see picture and text together; others refine one of them.
_LAYERS = re.compile(r"(((joint|single)_)?transformer_blocks|layers)\.\d+\.(attn|attention)")


@dataclass(frozen=True)
class Joint:
    """How a family's transformer is given a prompt.

    Attributes:
        read: the positions of a prompt, of a pipeline that cuts it after so many tokens.
        text_first: whether the text's positions come before the picture's.
        last: whether the prompt's row is the last of a guided call, and not the first.
        multiple: the picture's positions are filled up to a multiple of this.
        registers: positions of the network's own before the text.
    """

    read: Callable[[Any, str, int | None], Reading]
    text_first: bool = True
    last: bool = False
    multiple: int = 1
    registers: int = 0

    def parts(self, attention: Attention, cells: int, shown: int, text: int) -> tuple[slice, slice]:
        """Where a picture of so many cells is in a row, and its text.

        Args:
            shown: positions of all pictures in the row, the one that is made first.
            text: positions of the text.
        """
        if self.text_first:
            start = attention.key.shape[1] - shown
            return slice(start, start + cells), slice(self.registers, self.registers + text)
        start = -(-cells // self.multiple) * self.multiple
        return slice(cells), slice(start, start + text)


JOINTS: Mapping[str, Joint] = {
    "auraflow": Joint(texts.t5, last=True, registers=8),
    "sd3": Joint(texts.clip_and_t5, text_first=False, last=True),
    "flux": Joint(texts.t5),
    "flux-kontext": Joint(texts.t5),
    "flux2-klein": Joint(texts.klein),
    "flux2": Joint(texts.mistral),
    "z-image": Joint(texts.z_image, text_first=False, multiple=SEQ_MULTI_OF),
    "qwen-image": Joint(texts.qwen_image),
}


class Sample(Protocol):
    """What is needed of a `PipelineSample`."""

    recorder: Recorder | None
    guided: bool  # whether the prompt's own call of this step was made already

    @property
    def cells(self) -> Size:
        """Height and width of its grid of positions."""

    @property
    def row_count(self) -> int:
        """Rows of its call."""


def explained(
    network: nn.Module, samples: Sequence[Sample], call: Call, joint: Joint | None
) -> AbstractContextManager[None]:
    """Context of one call of a transformer, in which what explains some samples is recorded."""
    rows: list[Sample | None] = []
    for sample in samples:
        count = sample.row_count
        place = count - 1 if joint is not None and joint.last else 0
        wanted = sample.recorder is not None and not sample.guided
        rows += [sample if wanted and row == place else None for row in range(count)]
    if joint is None or not any(rows):
        return nullcontext()
    positions = call.batched.get("hidden_states")
    kind = joint

    def see(sample: Sample, recorder: Recorder, attention: Attention) -> None:
        height, width = sample.cells
        shown = height * width
        if positions is not None and positions.ndim == 3:  # not a picture, (rows, C, h, w)
            shown = positions.shape[1]
        parts = kind.parts(attention, height * width, shown, recorder.positions)
        recorder.see(attention, sample.cells, *parts)

    layers = [layer for name, layer in network.named_modules() if _LAYERS.fullmatch(name)]
    return recorded(layers, rows, see)
