"""CLIP's tokenizer, for single-file checkpoints, which have no vocabulary of their own."""

import gzip

from transformers import CLIPTokenizer

from darkroom.catalog.models import CONFIGS

MERGES = CONFIGS / "tokenizer" / "merges.txt.gz"  # with its licence
START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 77  # tokens


def clip_tokenizer(pad_token: str = END) -> CLIPTokenizer:
    """The tokenizer of SD 1, SD 2 and SDXL.

    Args:
        pad_token: OpenAI's encoder was trained with the end token, OpenCLIP's with `!`.

    Raises:
        OSError: the package's vocabulary cannot be read.
    """
    lines = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
    merges = [tuple(line.split()) for line in lines]
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

    Printable Latin-1 bytes come first and map to themselves, the others to the letters after
    Latin-1, as in `bytes_to_unicode` of https://github.com/openai/CLIP (clip/simple_tokenizer.py).
    """
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printed += range(ord("®"), ord("ÿ") + 1)
    others = 256 - len(printed)
    return [chr(number) for number in (*printed, *range(256, 256 + others))]
