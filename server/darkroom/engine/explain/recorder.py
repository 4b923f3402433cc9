"""Sums up what explains one picture while it is made."""

import base64
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import structlog
import torch
from torch import Tensor, nn

from darkroom.engine import errors
from darkroom.engine.attention_maps import Size, enlarged
from darkroom.engine.explain.attention import Attention, watched
from darkroom.engine.explain.tokens import Reading
from darkroom.responses import (
    DATA_URI,
    MAX_EXPLANATION_BYTES,
    ExplainedImage,
    ExplainedMaps,
    ExplainedSeconds,
    ExplainedStep,
    TokenMaps,
)

log = structlog.get_logger()

SHOWN_STEPS = 8
LONGEST_SIDE = 64  # of a map
# Of a picture's part of the JSON; what is left is for tokens and words.
PICTURES_SHARE, MAPS_SHARE = 0.55, 0.3
BASE64 = 4 / 3

Render = Callable[[Tensor], bytes | None]  # a small WebP of latents (1, C, h, w), if it can


@dataclass(frozen=True)
class Prompt:
    """A prompt as the network is given it.

    Attributes:
        carry: (windows, n, n): how much each position of the text encoder's output has from each
            token of its window, see `attention_maps.rollout`; None if that is not known.
    """

    reading: Reading
    carry: Tensor | None = None


@dataclass(frozen=True)
class Moment:
    """A step that is done. The tensors are (1, C, h, w).

    Attributes:
        signal: the latents are this much of the picture, and `noise` of the noise.
        latents: what the network was given.
        predicted_noise: what it found there.
        guess: the latents of the picture that would be left without.
    """

    timestep: float
    signal: float
    noise: float
    latents: Tensor
    predicted_noise: Tensor
    guess: Tensor


@dataclass
class _Sums:
    """Maps of all tokens by the grid that they are of, (tokens, h, w), and of how many layers."""

    maps: dict[Size, Tensor] = field(default_factory=dict)
    count: int = 0

    def add(self, size: Size, maps: Tensor, count: int) -> None:
        known = self.maps.get(size)
        self.maps[size] = maps if known is None else known + maps
        self.count += count

    def take(self, other: "_Sums") -> None:
        for size, maps in other.maps.items():
            self.add(size, maps, 0)
        self.count += other.count

    def mean(self) -> Tensor:
        """All of them at the largest grid's size, as in DAAM (arXiv 2210.04885)."""
        size = max(self.maps, key=math.prod)
        grown = [enlarged(maps[None], size)[0] for maps in self.maps.values()]
        return torch.stack(grown).sum(0) / self.count


class Recorder:
    """What explains one picture. Its memory does not grow with the steps or the layers.

    It never ends a job: what fails here is in `failure`, and the picture is made without.

    Args:
        index, seed: of the picture.
        images: of its job, which share the bytes that an explanation may have.
        prompt: how the network is given it.
        render: shows latents.
        crop: see `ExplainedImage`.
    """

    def __init__(
        self,
        index: int,
        seed: int,
        images: int,
        prompt: Callable[[], Prompt],
        render: Render,
        crop: tuple[int, int, int, int] | None = None,
    ) -> None:
        self._index, self._seed, self._crop = index, seed, crop
        self._render = render
        self._bytes = MAX_EXPLANATION_BYTES // images
        self._seen: defaultdict[str, _Sums] = defaultdict(_Sums)  # in the step that runs
        self._sums: defaultdict[str, _Sums] = defaultdict(_Sums)
        self._steps: list[ExplainedStep] = []
        self.denoise_s = self.decode_s = 0.0
        self.failure: Exception | None = None
        self._reading, self._carry = Reading(), None
        with self.attempt():
            said = prompt()
            self._reading, self._carry = said.reading, said.carry

    @property
    def positions(self) -> int:
        """Positions of the prompt."""
        return self._reading.length

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Context whose errors leave no explanation; raises what no process survives."""
        try:
            yield
        except Exception as error:
            errors.survivable(error)
            log.warning("a picture cannot be explained", exc_info=error)
            error.__traceback__ = None  # its frames hold what the maps had taken
            self.failure = error
            for held in (self._seen, self._sums, self._steps):
                held.clear()

    # --- maps ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Forget what was seen since the last step: a call that failed is made again."""
        self._seen.clear()

    def see(
        self,
        attention: Attention,
        cells: Size,
        queries: slice = slice(None),
        keys: slice = slice(None),
    ) -> None:
        """Add what a layer looks at.

        Args:
            cells: height and width of the layer's grid.
            queries: the grid's cells among the layer's queries.
            keys: the prompt's positions among its keys.
        """
        if self.failure is not None:
            return
        with self.attempt():
            own, back = self._maps(attention, queries, keys)
            self._add("own", own, cells)
            if back is not None:
                self._add("back", back, cells)

    def _maps(
        self, attention: Attention, queries: slice, keys: slice
    ) -> tuple[Tensor, Tensor | None]:
        """Maps of the tokens and of all padding, (tokens, cells); the second ones carried back."""
        own, back = [], []
        for _, weights in attention.weights(queries):
            text = weights[:, keys]  # (cells, positions)
            own.append(self._tokens(text))
            if self._carry is not None:
                windows = text.unflatten(1, self._carry.shape[:2])
                carried = torch.einsum("cwo,wot->cwt", windows, self._carry)
                back.append(self._tokens(carried.flatten(1)))
        return torch.cat(own).T, torch.cat(back).T if back else None

    def _tokens(self, text: Tensor) -> Tensor:
        """Of numbers by position, (cells, positions), those by token, padding in one."""
        if text.shape[1] != self._reading.length:
            raise ValueError(
                f"the network sees {text.shape[1]} positions, not {self._reading.length}"
            )
        tokens = text[:, self._reading.positions]
        if not self._reading.padding:
            return tokens
        return torch.cat([tokens, text[:, self._reading.padding].sum(1, keepdim=True)], 1)

    def _add(self, which: str, maps: Tensor, cells: Size) -> None:
        shaped = maps.unflatten(1, cells)
        size = fitted(cells, len(maps), self._bytes)
        if size != cells:
            shaped = torch.nn.functional.adaptive_avg_pool2d(shaped, size)
        self._seen[which].add(size, shaped.contiguous(), 1)

    # --- steps -----------------------------------------------------------------------------

    def step(self, step: int, steps: int, moment: Callable[[], Moment]) -> None:
        """Count what was seen to a step that is done, from 0 of so many, and maybe show it."""
        if self.failure is not None:
            return
        with self.attempt():
            self._sums["all"].take(self._seen["own"])
            if step >= steps - math.ceil(steps / 4):
                self._sums["last"].take(self._seen["own"])
            if self._carry is not None:
                self._sums["back"].take(self._seen["back"])
            self._seen.clear()
            if step in shown(steps):
                self._steps.append(self._show(step, moment()))

    def _show(self, step: int, moment: Moment) -> ExplainedStep:
        return ExplainedStep(
            index=step,
            timestep=moment.timestep,
            signal=round(moment.signal, 6),
            noise=round(moment.noise, 6),
            latents=self._picture(moment.latents),
            predicted_noise=self._picture(moment.predicted_noise),
            guess=self._picture(moment.guess),
        )

    def _picture(self, latents: Tensor) -> str | None:
        webp = self._render(latents)
        return None if webp is None else DATA_URI + base64.b64encode(webp).decode()

    # --- the end ---------------------------------------------------------------------------

    def explanation(self, prepare_s: float) -> ExplainedImage | None:
        """What there is to say once the picture is made; None if that failed."""
        if self.failure is not None:
            return None
        with self.attempt():
            return self._explanation(prepare_s)
        return None

    def _explanation(self, prepare_s: float) -> ExplainedImage:
        back = self._sums.get("back")
        return ExplainedImage(
            index=self._index,
            seed=self._seed,
            crop=self._crop,
            tokens=self._reading.shown(),
            words=self._reading.words,
            maps=ExplainedMaps(
                last_quarter=packed(self._sums["last"].mean()),
                all_steps=packed(self._sums["all"].mean()),
                carried_back=None if back is None else packed(back.mean()),
            ),
            steps=tuple(_thinned(self._steps, PICTURES_SHARE * self._bytes)),
            seconds=ExplainedSeconds(
                prepare=round(prepare_s, 6),
                denoise=round(self.denoise_s, 6),
                decode=round(self.decode_s, 6),
            ),
        )


def fitted(cells: Size, tokens: int, budget: int) -> Size:
    """The size of maps of so many tokens whose JSON may have its share of so many bytes.

    Height and width keep their ratio; neither is above `LONGEST_SIDE`, or above the grid's own.
    """
    most = MAPS_SHARE * budget / (3 * BASE64 * tokens)  # three maps a token
    scale = min(1.0, LONGEST_SIDE / max(cells), math.sqrt(most / math.prod(cells)))
    return max(1, int(cells[0] * scale)), max(1, int(cells[1] * scale))


def shown(steps: int) -> set[int]:
    """Which of so many steps are shown: the first, the last, and some evenly between them."""
    count = min(SHOWN_STEPS, steps)
    return {round(number * (steps - 1) / max(1, count - 1)) for number in range(count)}


def packed(maps: Tensor) -> TokenMaps:
    """Maps (tokens, h, w), none below 0, as bytes."""
    peaks = maps.amax((1, 2))
    parts = maps / peaks.clamp(min=torch.finfo(peaks.dtype).tiny)[:, None, None]
    data = (parts * 255).round().to(torch.uint8).cpu().numpy().tobytes()
    return TokenMaps(
        shape=tuple(maps.shape),
        data=base64.b64encode(data).decode(),
        peaks=tuple(round(float(peak), 8) for peak in peaks),
    )


def _thinned(steps: list[ExplainedStep], most: float) -> list[ExplainedStep]:
    """Steps whose pictures have so many bytes at most; the first and the last stay."""
    while len(steps) > 2 and sum(map(_size, steps)) > most:
        steps = [*steps[:-1:2], steps[-1]]
    return steps


def _size(step: ExplainedStep) -> int:
    pictures = (step.latents, step.predicted_noise, step.guess)
    return sum(len(picture) for picture in pictures if picture is not None)


class Recording(Protocol):
    """A sample that may be explained."""

    recorder: Recorder | None


One = TypeVar("One", bound=Recording)


def recorded(
    layers: Iterable[nn.Module],
    rows: Sequence[One | None],
    see: Callable[[One, Recorder, Attention], None],
) -> AbstractContextManager[None]:
    """Context of one call of a network, in which `see` records what its layers look at.

    Args:
        rows: of the call: the sample that a row explains, if it explains one.
        see: for each of these rows and each layer; its errors leave no explanation.
    """

    def look(row: int, attention: Attention) -> None:
        sample = rows[row]
        if sample is None or sample.recorder is None or sample.recorder.failure is not None:
            return
        with sample.recorder.attempt():
            see(sample, sample.recorder, attention)

    for sample in rows:
        if sample is not None and sample.recorder is not None:
            sample.recorder.begin()
    return watched(layers, look)
