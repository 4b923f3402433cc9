"""The positions of a prompt, as the pipelines of transformers make them of it."""

import itertools
from typing import Any

from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF
from diffusers.pipelines.flux2.pipeline_flux2 import format_input

from darkroom.engine.explain.tokens import Reading
from darkroom.responses import TokenKind

QWEN_TOKENS = 512  # that its pipeline reads, `max_sequence_length`


def t5(pipeline: Any, prompt: str, limit: int | None) -> Reading:
    """FLUX.1 and AuraFlow: T5's tokens."""
    reading = Reading()
    tokenizer = getattr(pipeline, "tokenizer_2", pipeline.tokenizer)
    _read(reading, tokenizer, prompt, prompt, limit)
    return reading


def clip_and_t5(pipeline: Any, prompt: str, limit: int | None) -> Reading:
    """Stable Diffusion 3: the tokens of both CLIPs, which are the same, then T5's."""
    reading = Reading()
    _read(reading, pipeline.tokenizer, prompt, prompt, pipeline.tokenizer.model_max_length)
    if pipeline.text_encoder_3 is None:
        reading.pad(limit or 0)
    else:
        _read(reading, pipeline.tokenizer_3, prompt, prompt, limit)
    return reading


def klein(pipeline: Any, prompt: str, limit: int | None) -> Reading:
    """FLUX.2 klein: a chat's first message."""
    reading = Reading()
    text = _chat(pipeline.tokenizer, prompt, enable_thinking=False)
    _read(reading, pipeline.tokenizer, text, prompt, limit)
    return reading


def z_image(pipeline: Any, prompt: str, limit: int | None) -> Reading:
    """Z-Image: a chat's first message without padding, and then some of the network's own."""
    reading = Reading()
    text = _chat(pipeline.tokenizer, prompt, enable_thinking=True)
    _read(reading, pipeline.tokenizer, text, prompt, limit, padded=False)
    reading.pad(-reading.length % SEQ_MULTI_OF)
    return reading


def mistral(pipeline: Any, prompt: str, limit: int | None) -> Reading:
    """FLUX.2: a message behind the system's."""
    reading = Reading()
    processor = pipeline.tokenizer
    tokenizer = getattr(processor, "tokenizer", processor)
    (messages,) = format_input([prompt], system_message=pipeline.system_message)
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    begun = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    said = messages[-1]["content"][0]["text"]
    _read(reading, tokenizer, text, said, limit, special=not begun)
    return reading


def qwen_image(pipeline: Any, prompt: str, _limit: int | None) -> Reading:
    """Qwen-Image: behind what its template says of the task, which is dropped."""
    reading = Reading()
    text = pipeline.prompt_template_encode.format(prompt)
    dropped = pipeline.prompt_template_encode_start_idx
    limit = dropped + min(pipeline.tokenizer_max_length, QWEN_TOKENS)
    _read(reading, pipeline.tokenizer, text, prompt, limit, padded=False, dropped=dropped)
    return reading


def _chat(tokenizer: Any, prompt: str, **options: Any) -> str:
    messages = [{"role": "user", "content": prompt}]
    text: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **options
    )
    return text


def _read(
    reading: Reading,
    tokenizer: Any,
    text: str,
    prompt: str,
    limit: int | None,
    *,
    padded: bool = True,
    special: bool = True,
    dropped: int = 0,
) -> None:
    """Add the tokens of a text that holds a prompt.

    Args:
        limit: how many tokens are read.
        padded: whether there are as many in any case.
        special: whether the tokenizer adds its own at the ends.
        dropped: the first tokens, which the network is not given.
    """
    made = tokenizer(
        text,
        max_length=limit,
        truncation=limit is not None,
        padding="max_length" if padded else False,
        add_special_tokens=special,
        return_offsets_mapping=True,
        return_attention_mask=True,
        verbose=False,
    )
    begin = max(0, text.rfind(prompt) if prompt else len(text))
    words = reading.words_of(text[begin : begin + len(prompt)])
    ends = {tokenizer.bos_token_id: TokenKind.START, tokenizer.eos_token_id: TokenKind.END}
    own = set(tokenizer.all_special_ids)
    rows = zip(made.input_ids, made.offset_mapping, made.attention_mask, strict=True)
    for number, (start, stop), real in itertools.islice(rows, dropped, None):
        inside = begin < stop and start < begin + len(prompt)
        if not real:
            reading.pad()
        elif inside and number not in own:
            # T5 has a token for the space before a word, which it places on the word.
            end = stop if tokenizer.decode([number]).strip() else start
            reading.read(text[begin:], [(max(0, start - begin), end - begin)], words)
        else:
            kind = TokenKind.TEMPLATE if text != prompt else ends.get(number, TokenKind.TEXT)
            reading.mark(tokenizer.decode([number]), kind)
