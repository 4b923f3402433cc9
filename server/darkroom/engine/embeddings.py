"""Textual inversions: words that stand for learned vectors instead of a row of the vocabulary.

diffusers' `load_textual_inversion` is not used because it finds a word inside others ("ink" in
"drinking"), makes its vectors' words in the prompt by replacing text in the same way, and draws
random rows for the vocabulary before it fills them. What both give for a prompt is the same.

In the vocabulary each vector has a character for private use (The Unicode Standard, 23.5), so that
embeddings may be called like words of the vocabulary, or like parts of one another.

LoRAs may bring embeddings along, which are words in the prompts of the jobs that use them. Their
vectors come when the model is in use, and perhaps offloaded: they are put into what the encoder's
table gives, and not into the table.
"""

import itertools
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from tokenizers import AddedToken

from darkroom.catalog import lora_tensors
from darkroom.catalog.lora_tensors import BUNDLED
from darkroom.catalog.loras import EmbeddingEntry

log = structlog.get_logger()

# In CLIP's first configurations this stood for "the end is the largest id in the text", which
# added words break (transformers, modeling_clip.py).
_LARGEST_ID = 2

FIRST, LAST = 0xF0000, 0xFFFFD  # the characters of private use in plane 15


def is_vector(token: str) -> bool:
    """Whether a token of a tokenizer stands for a vector of an embedding."""
    return len(token) == 1 and FIRST <= ord(token) <= LAST


Expansions = Mapping[str, Sequence[str]]  # an embedding's name → the characters of its vectors
NO_EXPANSIONS: Expansions = MappingProxyType({})
Vectors = list[torch.Tensor]  # of an embedding, (n, width) for each encoder


class Embeddings:
    """The words that were added to a pipeline, each with those of all of its vectors.

    Args:
        models: the pipeline's tokenizers, each with its encoder.
        left: characters for more vectors.
    """

    def __init__(
        self, words: Expansions, models: Sequence["_Encoder"] = (), left: Iterable[str] = ()
    ) -> None:
        self.names = tuple(words)
        self._words = words
        self._models = models
        self._left = iter(left)
        self._learnt: dict[Hashable, Expansions] = {}

    def expand(self, prompt: str, more: Expansions = NO_EXPANSIONS) -> str:
        """The prompt with the words of every vector in place of the embedding's.

        What has been written out stays as it is, so that expanding twice does no harm.

        Args:
            more: words besides its own; of two with one name its own is meant, as in A1111.
        """
        forms: dict[str, str] = {}
        for name, parts in (*more.items(), *self._words.items()):
            whole = " ".join(parts)
            forms |= {name.lower(): whole, whole.lower(): whole}
        if not forms:
            return prompt
        longest_first = sorted(forms, key=len, reverse=True)
        any_form = "|".join(re.escape(form) for form in longest_first)
        pattern = rf"(?<!\w)(?:{any_form})(?!\w)"
        # A character such as ı matches others that it is no small form of.
        return re.sub(
            pattern,
            lambda found: forms.get(found[0].lower(), found[0]),
            prompt,
            flags=re.IGNORECASE,
        )

    def learn(self, bundle: Hashable, found: Mapping[str, Vectors]) -> Expansions:
        """Expansions of the embeddings of a LoRA that fit the encoders, for `expand`.

        Args:
            bundle: the same for the same vectors, which get the same words again.

        Raises:
            ValueError: an embedding is broken, or there are too many vectors.
        """
        if bundle not in self._learnt:
            widths = tuple(model.width for model in self._models)
            fitting = {
                name: vectors
                for name, vectors in found.items()
                if tuple(each.shape[1] for each in vectors) == widths
            }
            words: dict[str, list[str]] = {}
            for name, vectors in fitting.items():
                _check_finite(vectors)
                words[name] = list(itertools.islice(self._left, len(vectors[0])))
                if len(words[name]) < len(vectors[0]):
                    raise ValueError("the embeddings of all LoRAs have too many vectors")
                for model, rows in zip(self._models, vectors, strict=True):
                    model.learn(words[name], rows)
            self._learnt[bundle] = words
        return self._learnt[bundle]

    def name(self, word: str) -> str:
        """What people call an expanded word; others stay as they are."""
        if not any(FIRST <= ord(letter) <= LAST for letter in word):
            return word
        known = {
            part: name
            for words in (self._words, *self._learnt.values())
            for name, parts in words.items()
            for part in parts
        }
        return " ".join(dict.fromkeys(known.get(part, part) for part in word.split(" ")))


class _Encoder:
    """A text encoder with its tokenizer, and the vectors of words that its table lacks."""

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder
        self._vectors: dict[int, torch.Tensor] = {}
        self._here: list[tuple[tuple[int, ...], torch.Tensor]] = []  # in the call that is made

    @property
    def width(self) -> int:
        width: int = self.encoder.get_input_embeddings().embedding_dim
        return width

    def add(self, tokens: list[str], vectors: torch.Tensor) -> None:
        """Add tokens, and their rows, (tokens, width), to the encoder's table."""
        ids = self._add_tokens(tokens)
        old = self.encoder.get_input_embeddings().weight
        rows = old.new_zeros((max(len(old), *(i + 1 for i in ids)), old.shape[1]))
        rows[: len(old)] = old
        rows[ids] = vectors.to(rows)
        self.encoder.set_input_embeddings(torch.nn.Embedding.from_pretrained(rows))

    def learn(self, tokens: list[str], vectors: torch.Tensor) -> None:
        """Add tokens whose rows stay beside the encoder's table, which may be offloaded."""
        ids = self._add_tokens(tokens)
        if not self._vectors:
            table = self.encoder.get_input_embeddings()
            table.register_forward_pre_hook(self._hide)
            table.register_forward_hook(self._show)
        self._vectors |= dict(zip(ids, vectors, strict=True))

    def _add_tokens(self, tokens: list[str]) -> list[int]:
        self.tokenizer.add_tokens([AddedToken(token, single_word=True) for token in tokens])
        model = self.encoder if hasattr(self.encoder, "eos_token_id") else self.encoder.text_model
        if model.eos_token_id == _LARGEST_ID:
            model.eos_token_id = self.tokenizer.eos_token_id
        ids: list[int] = self.tokenizer.convert_tokens_to_ids(tokens)
        return ids

    def _hide(self, _table: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """Call the table with ids that it has."""
        (ids,) = inputs
        flat = enumerate(ids.flatten().tolist())
        found = [(place, self._vectors[each]) for place, each in flat if each in self._vectors]
        shape = ids.shape
        self._here = [(_place(place, shape), vector) for place, vector in found]
        if not found:
            return inputs
        ids = ids.clone()
        for place, _ in self._here:
            ids[place] = 0
        return (ids,)

    def _show(self, _table: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if self._here:
            output = output.clone()
        for place, vector in self._here:
            output[place] = vector.to(output)
        self._here = []
        return output


def _place(place: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The indexes of a number of a flattened tensor."""
    found: list[int] = []
    for size in reversed(shape):
        place, rest = divmod(place, size)
        found.append(rest)
    return tuple(reversed(found))


def load_embeddings(pipeline: Any, entries: Iterable[EmbeddingEntry]) -> Embeddings:
    """Give a freshly loaded pipeline a word for every embedding that fits its text encoders.

    The words are the files' names, whatever their case. Files of another width are passed over. A
    file that is broken, or whose name differs from another's in case alone, is left out, and the
    log says so.
    """
    models = [
        _Encoder(
            getattr(pipeline, f"tokenizer{suffix}"), getattr(pipeline, f"text_encoder{suffix}")
        )
        for suffix in ("", "_2")
        if getattr(pipeline, f"text_encoder{suffix}", None) is not None
    ]
    widths = tuple(model.width for model in models)
    left = map(chr, range(FIRST, LAST + 1))
    taken: set[str] = set()
    words: dict[str, list[str]] = {}
    vectors: dict[str, Vectors] = {}
    for entry in entries:
        name = entry.info.name
        if entry.widths != widths:
            continue
        parts = list(itertools.islice(left, entry.info.vectors))
        try:
            if name.lower() in taken:
                raise ValueError("another one has this name, but for its case")
            if len(parts) < entry.info.vectors:
                raise ValueError("the others have too many vectors")
            vectors[name] = _read(entry.path, widths, len(parts))
        except ValueError as error:
            log.warning("embedding left out", embedding=name, reason=str(error))
            continue
        words[name] = parts
        taken.add(name.lower())
    if words:
        tokens = [part for parts in words.values() for part in parts]
        with torch.inference_mode(False), torch.no_grad():
            for index, model in enumerate(models):
                model.add(tokens, torch.cat([v[index] for v in vectors.values()]))
        log.info("embeddings loaded", names=list(words))
    return Embeddings(words, models, left)


def bundled(path: Path) -> dict[str, Vectors]:
    """The embeddings that are bundled with a LoRA, by name.

    Raises:
        ValueError: it cannot be read, or holds an embedding of no form that is known.
    """
    try:
        with safe_open(path, framework="pt") as file:
            keys = [key for key in file.keys() if key.startswith(BUNDLED)]  # noqa: SIM118
            tensors = {key: file.get_tensor(key) for key in keys}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot be read ({error})") from None
    return {
        name: [_rows(tensors[key]) for key in keys]
        for name, keys in lora_tensors.bundled({key: v.shape for key, v in tensors.items()}).items()
    }


def _read(path: Path, widths: tuple[int, ...], count: int) -> list[torch.Tensor]:
    """The vectors for each encoder, (count, width)."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot be read ({error})") from None
    keys: tuple[str, ...] = ("clip_l", "clip_g")
    if len(widths) == 1:
        keys = ("emb_params",) if "emb_params" in tensors else tuple(tensors)[:1]
    found = [tensors[key] for key in keys if key in tensors]
    shaped = [_rows(v) for v in found]
    if [tuple(v.shape) for v in shaped] != [(count, width) for width in widths]:
        raise ValueError("has changed while it was read")
    _check_finite(shaped)
    return shaped


def _rows(vectors: torch.Tensor) -> torch.Tensor:
    return vectors.float().reshape(-1, vectors.shape[-1])


def _check_finite(vectors: Vectors) -> None:
    if not all(each.isfinite().all() for each in vectors):
        raise ValueError("holds numbers that are infinite or none at all")
