"""Tokenizers for single files, which have none of their own, from the vocabularies carried here."""

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import CLIPTokenizer, Qwen2Tokenizer, T5Tokenizer

from darkroom.catalog.listing import CONFIGS

# Their sources and licences are beside them.
CLIP = CONFIGS / "tokenizer" / "merges.txt.gz"
QWEN = CONFIGS / "tokenizer" / "qwen.txt.gz"
T5 = CONFIGS / "tokenizer" / "t5.json.gz"

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 77  # tokens of CLIP
# Behind Qwen's vocabulary, in this order; the later models' marks for tools and thoughts come last.
QWEN_MARKS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>"),
    *("</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>"),
    "</think>",
)
# Qwen3's, of turns that are text and call no tools.
QWEN_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)


def clip_tokenizer(pad_token: str = END) -> CLIPTokenizer:
    """The tokenizer of SD 1, SD 2 and SDXL.

    OpenAI's encoder was trained with the end token as padding, OpenCLIP's with `!`.
    """
    merges = _merges(CLIP)
    letters = _letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += [*("".join(merge) for merge in merges), START, END]
    return CLIPTokenizer(
        vocab=_numbered(words),
        merges=merges,  # type: ignore[arg-type]  # annotated as text; the backend takes pairs
        pad_token=pad_token,
        model_max_length=CONTEXT,
    )


def qwen_tokenizer(max_length: int) -> Qwen2Tokenizer:
    """The tokenizer of Qwen2.5 and Qwen3, with Qwen3's template of turns."""
    merges = _merges(QWEN)
    words = [*_letters(), *("".join(merge) for merge in merges)]
    made = Qwen2Tokenizer(
        vocab=_numbered(words),
        merges=merges,  # type: ignore[arg-type]  # as above
        model_max_length=max_length,
        padding_side="right",
    )
    made.add_tokens(list(QWEN_MARKS), special_tokens=True)
    made.chat_template = QWEN_CHAT
    return made


def t5_tokenizer(max_length: int) -> Any:
    """The tokenizer of T5."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_bytes(gzip.decompress(T5.read_bytes()))
        return T5Tokenizer.from_pretrained(
            folder, model_max_length=max_length, local_files_only=True
        )


# Class of a tokenizer → what makes it of its `tokenizer_config.json`.
CARRIED: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "CLIPTokenizer": lambda said: clip_tokenizer(said["pad_token"]),
    "Qwen2Tokenizer": lambda said: qwen_tokenizer(said["model_max_length"]),
    "T5TokenizerFast": lambda said: t5_tokenizer(said["model_max_length"]),
    "T5Tokenizer": lambda said: t5_tokenizer(said["model_max_length"]),
}


def carried(class_name: str, folder: Path) -> Any:
    """The tokenizer of that class, as its folder's configuration says."""
    said = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return CARRIED[class_name](said)


def _merges(path: Path) -> list[tuple[str, ...]]:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return [tuple(line.split()) for line in lines]


def _letters() -> list[str]:
    """A printable letter for each byte.

    Printable Latin-1 bytes come first and map to themselves, the others to the letters after
    Latin-1, as in `bytes_to_unicode` of https://github.com/openai/CLIP (clip/simple_tokenizer.py).
    """
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printed += range(ord("®"), ord("ÿ") + 1)
    return [chr(number) for number in (*printed, *range(256, 512 - len(printed)))]


def _numbered(words: Iterable[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(words)}
