"""Turning prompts into what the UNet attends to: weights, any length, cached.

What diffusers' `encode_prompt` gives for a prompt without markup that fits one window, this gives
to the bit. On top come brackets and `BREAK` (see `prompt_syntax`), and prompts of any length,
which diffusers cuts off.

Weights follow A1111, whose numbers people bring along: each token's vector, as it leaves the
encoder, is multiplied by its weight, then the window is scaled back to its former mean. compel
2.5.1, the library for this, could not be used: its weights below 1 blend in encodings that lack
the word, one run of the encoder for each word and window (1,207 runs for 200 words in six); it asks
for the `text_model` that transformers 5 took out, so has no clip_skip, and never had one of more
than a layer; and it ends a window at its last comma even where that is the second token.
"""

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from darkroom.engine import prompt_syntax
from darkroom.engine.embeddings import NO_EXPANSIONS, Expansions, is_vector
from darkroom.engine.errors import NotFiniteError
from darkroom.engine.explain.clip import shares
from darkroom.engine.explain.recorder import Prompt
from darkroom.engine.explain.tokens import Reading, WordSpans
from darkroom.engine.prompt_syntax import MAX_WEIGHT, Passage, PromptError
from darkroom.errors import message
from darkroom.responses import TokenKind

MAX_WINDOWS = 128  # 8,000 characters of English take about 27
COMMA_REACH = 20  # tokens; A1111's default for "Prompt word wrap length limit"


@dataclass(frozen=True)
class Conditioning:
    """An encoded prompt. The tensors are cached and shared: do not write to them."""

    embeds: torch.Tensor  # (1, tokens, dim) in the encoder's dtype; `tokens` is a multiple of 77
    pooled: torch.Tensor | None  # (1, dim) from SDXL's second encoder; None for SD 1.x and 2.x


@dataclass(frozen=True)
class _Token:
    """Attributes: within: how many tokens of the same embedding are before it."""

    id: int
    weight: float
    within: int = 0


Window = Sequence[_Token]  # without begin, end and padding


class _TextModel:
    """A tokenizer and its encoder; SDXL has two, its refiner only the second of them."""

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.comma: int | None = tokenizer.get_vocab().get(",</w>")
        self.window_size = int(tokenizer.model_max_length) - 2  # beside begin and end: 75


class PromptEncoder:
    """Encodes prompts for one loaded model. Used from one thread.

    Args:
        pipeline: of StableDiffusion or StableDiffusionXL, for any task; text encoders are not
            exchanged, and what changes their weights is told as `variant`.
        expand: rewrites a prompt, to name every vector of a textual inversion, also of those words
            that are given besides.
        name: says what people call such a word.
        capacity: windows of 77 tokens to remember, least recently used out first; one of SDXL
            takes 315 kB in fp16.
    """

    def __init__(
        self,
        pipeline: Any,
        device: torch.device,
        expand: Callable[[str, Expansions], str] = lambda text, _words: text,
        name: Callable[[str], str] = str,
        capacity: int = 256,
    ) -> None:
        self._xl = hasattr(pipeline, "text_encoder_2")
        pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
        if self._xl:
            pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
        self._text_models = [
            _TextModel(tokenizer, encoder) for tokenizer, encoder in pairs if encoder is not None
        ]
        self._zeros_for_empty = self._xl and pipeline.config.force_zeros_for_empty_prompt
        self._device = device
        self._expand = expand
        self._name = name
        self._capacity = capacity
        self._kept: dict[Hashable, Conditioning] = {}  # least recently used first

    def encode(
        self,
        prompt: str,
        *,
        clip_skip: int = 0,
        negative: bool = False,
        variant: Hashable = (),
        words: Expansions = NO_EXPANSIONS,
    ) -> Conditioning:
        """Encode a prompt with markup, or remember it.

        A negative prompt is always encoded by all layers, as in diffusers. An empty one becomes
        zeros in an SDXL model that was trained so, which is what diffusers does for
        `negative_prompt=None`.

        Args:
            clip_skip: last encoder layers to leave out.
            variant: what else the encoding depends on: the LoRAs that are applied.
            words: textual inversions that they bring along.

        Raises:
            PromptError: a weight is out of range, there are over `MAX_WINDOWS` windows, or
                clip_skip leaves no layer.
            NotFiniteError: the text encoder gave NaN or infinity.
        """
        key = (prompt, clip_skip, negative, variant)
        conditioning = self._kept.pop(key, None)
        if conditioning is None:
            conditioning = self._encode(prompt, 0 if negative else clip_skip, words)
            if negative and prompt == "" and self._zeros_for_empty:
                assert conditioning.pooled is not None
                conditioning = Conditioning(
                    torch.zeros_like(conditioning.embeds), torch.zeros_like(conditioning.pooled)
                )
        self._kept[key] = conditioning
        window = self._text_models[0].window_size + 2
        while sum(kept.embeds.shape[1] for kept in self._kept.values()) > self._capacity * window:
            del self._kept[next(iter(self._kept))]
        return conditioning

    @torch.no_grad()
    def explain(
        self, prompt: str, *, clip_skip: int = 0, words: Expansions = NO_EXPANSIONS
    ) -> Prompt:
        """The tokens of a prompt that was encoded, and how much each embedding has from each."""
        passages = prompt_syntax.parse(self._expand(prompt, words))
        cuts = self._cut(passages)
        first = self._text_models[0].tokenizer
        reading = Reading()
        tokens = self._located(first, passages, reading)
        for window in cuts[0]:
            reading.mark(first.bos_token, TokenKind.START)
            for text, span, spans in itertools.islice(tokens, len(window)):
                reading.read(text, [span], spans, self._name)
            reading.mark(first.eos_token, TokenKind.END)
            reading.pad(self._text_models[0].window_size - len(window))
        carries = []
        for text_model, windows in zip(self._text_models, cuts, strict=True):
            layers = text_model.encoder.config.num_hidden_layers - clip_skip - self._xl
            runs = [self._given(text_model, window) for window in windows]
            carries.append(
                torch.stack(
                    [shares(text_model.encoder, ids, layers, **options) for ids, options in runs]
                )
            )
        return Prompt(reading, torch.stack(carries).mean(0))

    def _located(
        self, tokenizer: Any, passages: Sequence[Passage], reading: Reading
    ) -> Iterator[tuple[str, tuple[int, int], WordSpans]]:
        """Each token of the fragments: the text that it is in, where, and that text's words."""
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        for fragment in itertools.chain.from_iterable(passages):
            spans = reading.words_of(fragment.text, self._name)
            for span in tokenizer(fragment.text, **options).offset_mapping:
                yield fragment.text, span, spans

    @torch.no_grad()
    def _encode(self, prompt: str, clip_skip: int, words: Expansions) -> Conditioning:
        prompt_syntax.check(prompt_syntax.parse(prompt))
        passages = prompt_syntax.parse(self._expand(prompt, words))  # names may have brackets
        cuts = self._cut(passages)
        embeds, pooled = [], None
        for text_model, windows in zip(self._text_models, cuts, strict=True):
            # One at a time: in a batch, the bits of a window would depend on how many there are.
            runs = [self._run(text_model, window, clip_skip) for window in windows]
            embeds.append(torch.cat([hidden for hidden, _ in runs], dim=1))  # (1, tokens, dim)
            pooled = runs[0][1]  # of the first window, as in A1111, and by the last encoder
        joined = torch.cat(embeds, dim=-1)
        if not joined.isfinite().all():
            raise NotFiniteError("text encoder")
        return Conditioning(joined.to(self._device, self._text_models[-1].encoder.dtype), pooled)

    def _cut(self, passages: Sequence[Passage]) -> list[list[Window]]:
        """The windows of each tokenizer; all have as many."""
        cuts = [self._windows(text_model, passages) for text_model in self._text_models]
        # A textual inversion known to one tokenizer only can make the other need more windows.
        count = max(len(windows) for windows in cuts)
        if count > MAX_WINDOWS:
            size = self._text_models[0].window_size
            raise PromptError(
                message(
                    "prompt_windows",
                    "the prompt takes {count} windows of {size} tokens; at most {most} are "
                    "allowed: shorten it, or use BREAK less",
                    count=count,
                    size=size,
                    most=MAX_WINDOWS,
                )
            )
        return [[*windows, *[()] * (count - len(windows))] for windows in cuts]

    def _windows(self, text_model: _TextModel, passages: Sequence[Passage]) -> list[Window]:
        """Tokenize, and cut into windows."""
        windows: list[Window] = []
        for index, passage in enumerate(passages):
            texts = [fragment.text for fragment in passage]
            # `verbose` would warn of text longer than a window, which is why it is cut.
            options = {"add_special_tokens": False, "verbose": False}
            ids = text_model.tokenizer(texts, **options).input_ids if texts else []
            tokens = [
                _Token(number, fragment.weight, within)
                for fragment, numbers in zip(passage, ids, strict=True)
                for number, within in zip(
                    numbers, self._places(text_model.tokenizer, numbers), strict=True
                )
            ]
            if tokens or index == 0 or index < len(passages) - 1:  # a BREAK at the end adds nothing
                windows += cut(tokens, text_model.comma, text_model.window_size)
        return windows

    def _places(self, tokenizer: Any, numbers: Sequence[int]) -> Iterator[int]:
        """For each token, how many of the same embedding are before it."""
        within, before = 0, ""
        for token in tokenizer.convert_ids_to_tokens(numbers):
            goes_on = (
                is_vector(token)
                and is_vector(before)
                and ord(token) == ord(before) + 1
                and self._name(token) == self._name(before)
            )
            within = within + 1 if goes_on else 0
            before = token
            yield within

    def _run(
        self, text_model: _TextModel, window: Window, clip_skip: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Encode one window as `encode_prompt` of StableDiffusion(XL)Pipeline does, then weigh it.

        Returns hidden states, (1, 77, dim), and the pooled output, (1, dim), where there is one.
        """
        encoder = text_model.encoder
        ids, options = self._given(text_model, window)
        if self._xl or clip_skip:
            options["output_hidden_states"] = True
        output = encoder(ids, **options)
        hidden = output[0]  # (1, 77, dim); unless it is SDXL's
        if self._xl:
            hidden = _layer(output, clip_skip, start=2)  # it was trained on the last layer but one
        elif clip_skip:
            # transformers 5 took the wrapper out that diffusers 0.42 still reaches through.
            model = getattr(encoder, "text_model", encoder)
            hidden = model.final_layer_norm(_layer(output, clip_skip, start=1))
        behind = [1.0] * (ids.shape[1] - len(window) - 1)
        weights = [1.0, *(token.weight for token in window), *behind]
        return weigh(hidden, weights), getattr(output, "text_embeds", None)

    def _given(self, text_model: _TextModel, window: Window) -> tuple[torch.Tensor, dict[str, Any]]:
        """What an encoder is given of a window: ids, (1, 77), and options."""
        tokenizer, encoder = text_model.tokenizer, text_model.encoder
        padding = [tokenizer.pad_token_id] * (text_model.window_size - len(window))
        numbers = [token.id for token in window]
        ids = torch.tensor(
            [[tokenizer.bos_token_id, *numbers, tokenizer.eos_token_id, *padding]],
            device=self._device,
        )
        options: dict[str, Any] = {}
        if not self._xl and getattr(encoder.config, "use_attention_mask", False):
            mask = [1] * (len(window) + 2) + [0] * len(padding)
            options["attention_mask"] = torch.tensor([mask], device=self._device)
        return ids, options


def _layer(output: Any, clip_skip: int, start: int) -> torch.Tensor:
    """Hidden states `clip_skip` layers before the one that is `start`th from the end."""
    states = output.hidden_states  # of the input, then of every layer
    if not 0 <= clip_skip <= len(states) - start:
        raise PromptError(
            message(
                "clip_skip_range",
                "clip_skip is {given}, and must be from 0 to {most} with this model",
                given=clip_skip,
                most=len(states) - start,
            )
        )
    hidden: torch.Tensor = states[-(clip_skip + start)]
    return hidden


def cut(tokens: Sequence[_Token], comma: int | None, window_size: int) -> Iterator[Window]:
    """Cut the tokens of a passage into windows where they are full, as A1111 does.

    A window ends early, behind its last comma, if that is one of its last `COMMA_REACH` tokens,
    so that a phrase stays whole; and before an embedding whose vectors do not all find room. No
    tokens make one empty window. `comma` is its id, if any.
    """
    start = 0
    while len(tokens) - start > window_size:
        end = start + window_size
        whole = end - tokens[end].within
        if start < whole < end:
            end = whole
        elif tokens[end].id != comma:
            near = range(end, end - COMMA_REACH, -1)
            end = next((stop for stop in near if tokens[stop - 1].id == comma), end)
        yield tokens[start:end]
        start = end
    yield tokens[start:]


def weigh(hidden: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Multiply each token's vector, (1, tokens, dim), by its weight, and restore the mean.

    The mean keeps a prompt of many strong words from drowning the rest of the picture. In models
    whose vectors have hardly a mean (tintype: a ten-thousandth of their spread) the ratio would be
    one of rounding errors; there, or where it leaves the range of weights, vectors stay as
    multiplied, which is A1111's "No norm". If all weights are 1, no bit changes.
    """
    if all(weight == 1 for weight in weights):
        return hidden
    plain = hidden.float()
    weighted = plain * torch.tensor(weights, device=hidden.device)[None, :, None]
    mean, spread = float(plain.mean()), float(plain.std())
    ratio = mean / (float(weighted.mean()) or float("nan"))
    if abs(mean) > 0.01 * spread and 1 / MAX_WEIGHT <= ratio <= MAX_WEIGHT:
        weighted *= ratio
    return weighted.to(hidden.dtype)
