"""Textual inversions: words that stand for learned vectors instead of a row of the vocabulary.

diffusers' `load_textual_inversion` is not used because it finds a word inside others ("ink" in
"drinking"), makes its vectors' words in the prompt by replacing text in the same way, and draws
random rows for the vocabulary before it fills them. What both give for a prompt is the same.

In the vocabulary each vector has a character for private use (The Unicode Standard, 23.5), so that
embeddings may be called like words of the vocabulary, or like parts of one another.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import AddedToken

from darkroom.catalog.loras import EmbeddingEntry

log = structlog.get_logger()

# In CLIP's first configurations this stood for "the end is the largest id in the text", which
# added words break (transformers, modeling_clip.py).
_LARGEST_ID = 2

FIRST, LAST = 0xF0000, 0xFFFFD  # the characters of private use in plane 15


class Embeddings:
    """The words that were added to a pipeline, each with those of all of its vectors."""

    def __init__(self, words: Mapping[str, Sequence[str]]) -> None:
        self.names = tuple(words)
        self._forms: dict[str, str] = {}
        for name, parts in words.items():
            whole = " ".join(parts)
            self._forms |= {name.lower(): whole, whole.lower(): whole}
        longest_first = sorted(self._forms, key=len, reverse=True)
        forms = "|".join(re.escape(form) for form in longest_first)
        self._pattern = re.compile(rf"(?<!\w)(?:{forms})(?!\w)", re.IGNORECASE)

    def expand(self, prompt: str) -> str:
        """The prompt with the words of every vector in place of the embedding's.

        What has been written out stays as it is, so that expanding twice does no harm.
        """
        if not self._forms:
            return prompt
        return self._pattern.sub(lambda found: self._forms[found[0].lower()], prompt)


def load_embeddings(pipeline: Any, entries: Iterable[EmbeddingEntry]) -> Embeddings:
    """Give a freshly loaded pipeline a word for every embedding that fits its text encoders.

    The words are the files' names, whatever their case. Files of another width are passed over. A
    file that is broken, or whose name differs from another's in case alone, is left out, and the
    log says so.
    """
    encoders = [
        (getattr(pipeline, f"tokenizer{suffix}"), getattr(pipeline, f"text_encoder{suffix}"))
        for suffix in ("", "_2")
        if getattr(pipeline, f"text_encoder{suffix}", None) is not None
    ]
    widths = tuple(encoder.get_input_embeddings().embedding_dim for _, encoder in encoders)
    left = map(chr, range(FIRST, LAST + 1))
    taken: set[str] = set()
    words: dict[str, list[str]] = {}
    vectors: dict[str, list[torch.Tensor]] = {}  # one (n, width) an encoder
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
            for index, (tokenizer, encoder) in enumerate(encoders):
                _add(tokenizer, encoder, tokens, torch.cat([v[index] for v in vectors.values()]))
        log.info("embeddings loaded", names=list(words))
    return Embeddings(words)


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
    shaped = [v.float().reshape(-1, v.shape[-1]) for v in found]
    if [tuple(v.shape) for v in shaped] != [(count, width) for width in widths]:
        raise ValueError("has changed while it was read")
    if not all(v.isfinite().all() for v in shaped):
        raise ValueError("holds numbers that are infinite or none at all")
    return shaped


def _add(tokenizer: Any, encoder: Any, tokens: list[str], vectors: torch.Tensor) -> None:
    """Add tokens to a tokenizer, and their rows, (tokens, width), to its encoder's table."""
    tokenizer.add_tokens([AddedToken(token, single_word=True) for token in tokens])
    ids = tokenizer.convert_tokens_to_ids(tokens)
    old = encoder.get_input_embeddings().weight
    rows = old.new_zeros((max(len(old), *(i + 1 for i in ids)), old.shape[1]))
    rows[: len(old)] = old
    rows[ids] = vectors.to(rows)
    encoder.set_input_embeddings(torch.nn.Embedding.from_pretrained(rows))
    text_model = encoder if hasattr(encoder, "eos_token_id") else encoder.text_model
    if text_model.eos_token_id == _LARGEST_ID:
        text_model.eos_token_id = tokenizer.eos_token_id
