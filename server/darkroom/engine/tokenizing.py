"""CLIP's tokenizer, for single files: they hold no vocabulary, and all have the same one."""

from transformers import CLIPTokenizer

from darkroom.catalog.models import CONFIGS

MERGES = CONFIGS / "tokenizer" / "merges.txt"  # with its licence
START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 77  # tokens


def clip_tokenizer(pad_token: str = END) -> CLIPTokenizer:
    """The tokenizer of SD 1, SD 2 and SDXL.

    Args:
        pad_token: fills prompts up; OpenAI's encoder was fed the end token, OpenCLIP's `!`.
    """
    merges = [tuple(line.split()) for line in MERGES.read_text(encoding="utf-8").splitlines()]
    letters = _letters()
    words = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(merge) for merge in merges),
        START,
        END,
    ]
    return CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=merges,  # type: ignore[arg-type]  # annotated as text; the backend takes pairs
        pad_token=pad_token,
        model_max_length=CONTEXT,
    )


def _letters() -> list[str]:
    """A printable letter for each byte, in the order of the vocabulary.

    Bytes that Latin-1 prints stand for themselves and come first, the others take the letters
    after it, as in `bytes_to_unicode` of https://github.com/openai/CLIP (clip/simple_tokenizer.py).
    """
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printed += range(ord("®"), ord("ÿ") + 1)
    others = 256 - len(printed)
    return [chr(number) for number in (*printed, *range(256, 256 + others))]
