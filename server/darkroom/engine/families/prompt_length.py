"""How many tokens of a prompt a pipeline reads, beside those of the text that it puts around it."""

from dataclasses import dataclass
from typing import Any

from diffusers.pipelines.flux2.pipeline_flux2 import format_input
from transformers import CLIPTokenizer

MARK = "{}"  # where the prompt goes in


@dataclass(frozen=True)
class Length:
    """Of a prompt, in tokens.

    Attributes:
        tokens: that it has.
        read: that the model reads of so many; the first ones.
    """

    tokens: int
    read: int


def measure(pipeline: Any, prompt: str, limit: int, chat: bool) -> Length | None:
    """The length of a prompt; None where the pipeline has no tokenizer.

    Args:
        limit: of the pipeline's tokens, `max_sequence_length`.
        chat: whether it sends the prompt as a chat's first message.
    """
    names = ("tokenizer_3", "tokenizer_2", "tokenizer")  # the longest text's comes last
    found = next((t for name in names if (t := getattr(pipeline, name, None)) is not None), None)
    if found is None:
        return None
    tokenizer = getattr(found, "tokenizer", found)  # of a processor
    if isinstance(tokenizer, CLIPTokenizer):  # as of Stable Diffusion 3 without its T5
        limit = tokenizer.model_max_length
    before, dropped = _before(pipeline, found, chat)

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    around = count(before) if before else 0
    special = 0 if before else tokenizer.num_special_tokens_to_add()
    return Length(count(before + prompt) - around, limit + dropped - around - special)


def _before(pipeline: Any, tokenizer: Any, chat: bool) -> tuple[str, int]:
    """The text before a prompt, and how many of its tokens do not count towards the limit."""
    if template := getattr(pipeline, "prompt_template_encode", None):  # Qwen-Image
        return template.partition(MARK)[0], pipeline.prompt_template_encode_start_idx
    if said := getattr(pipeline, "system_message", None):  # FLUX.2
        (messages,) = format_input([MARK], system_message=said)
    elif chat:
        messages = [{"role": "user", "content": MARK}]
    else:
        return "", 0
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text.rpartition(MARK)[0], 0
