"""What a prompt's markup means: A1111's brackets and `BREAK`. Imports no torch.

The syntax is that of Stable Diffusion web UI's "Attention/emphasis"
(https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features#attentionemphasis), because
it is the one that people paste. docs/prompts.md has the examples, and says what is left out. No
maintained library reads it: compel has a syntax of its own.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, groupby

from darkroom.errors import DarkroomError, message

EMPHASIS = 1.1  # what one bracket without a number does
MAX_WEIGHT = 5.0  # pictures fall apart from about 2 on

# Every alternative fails or succeeds in one pass over its characters, so 8,000 of the worst
# take 8,000 steps.
_MARKUP = re.compile(
    r"""
      \\ (?P<escaped> [()\[\]\\] )
    | : \s* (?P<weight> [+-]? (?: [0-9]+ (?: \. [0-9]* )? | \. [0-9]+ ) ) \s* \)
    | (?P<bracket> [()\[\]] )
    | (?P<stop> \b BREAK \b )
    """,
    re.VERBOSE,
)


class PromptError(DarkroomError, ValueError):
    """The prompt cannot be encoded; the message is for its author."""


@dataclass(frozen=True)
class Fragment:
    """Text of one weight, without markup."""

    text: str  # never empty; spaces at its ends are kept
    weight: float  # what its token vectors are multiplied by, to six decimals


Passage = tuple[Fragment, ...]  # what stands between two BREAKs; may be empty


def parse(prompt: str) -> tuple[Passage, ...]:
    """Take the markup out of a prompt. Never raises; takes time linear in the prompt's length.

    `(x)` multiplies by 1.1, `[x]` divides by it, `(x:1.3)` multiplies by 1.3; nested ones multiply
    up. Round and square brackets pair up separately, so `(a [b) c]` is what it looks like. A
    backslash before a bracket or a backslash makes that literal. Literal, too, are a bracket
    without a partner and a colon without a number behind it.

    Returns:
        One passage more than there are `BREAK`s. Neighbouring fragments differ in weight, so a
        prompt without markup is one passage of one fragment of weight 1.
    """
    marks = list(_MARKUP.finditer(prompt))
    factors = _pair(marks)
    weights = {"(": [1.0], "[": [1.0]}  # innermost last
    passages: list[list[Fragment]] = [[]]

    def say(text: str) -> None:
        if text:
            # Rounded, so that [(x)] is 1 whatever floating point makes of it.
            weight = round(weights["("][-1] * weights["["][-1], 6)
            passages[-1].append(Fragment(text, weight))

    position = 0
    for index, mark in enumerate(marks):
        say(prompt[position : mark.start()])
        position = mark.end()
        if mark["escaped"]:
            say(mark["escaped"])
        elif mark["stop"]:
            passages.append([])
        elif index not in factors:
            say(mark[0])
        elif mark["bracket"] in weights:  # it opens
            nested = weights[mark["bracket"]]
            nested.append(nested[-1] * factors[index])
        else:
            weights["[" if mark[0] == "]" else "("].pop()
    say(prompt[position:])
    return tuple(_merge(passage) for passage in passages)


def _pair(marks: Iterable[re.Match[str]]) -> dict[int, float]:
    """What each bracket that has a partner multiplies by, by its mark's index."""
    waiting: dict[str, list[int]] = {"(": [], "[": []}
    factors: dict[int, float] = {}
    for index, mark in enumerate(marks):
        if mark["escaped"] or mark["stop"]:
            continue
        if mark["bracket"] in waiting:
            waiting[mark["bracket"]].append(index)
            continue
        partners = waiting["[" if mark[0] == "]" else "("]
        if partners:
            factor = 1 / EMPHASIS if mark[0] == "]" else float(mark["weight"] or EMPHASIS)
            factors[partners.pop()] = factors[index] = factor
    return factors


def _merge(fragments: Iterable[Fragment]) -> Passage:
    """Join neighbours of one weight."""
    runs = groupby(fragments, key=lambda fragment: fragment.weight)
    return tuple(Fragment("".join(f.text for f in run), weight) for weight, run in runs)


def check(passages: Iterable[Passage]) -> None:
    """Refuse weights that no picture comes of.

    Raises:
        PromptError: a weight is below 0 or above `MAX_WEIGHT`.
    """
    for fragment in chain.from_iterable(passages):
        if not 0 <= fragment.weight <= MAX_WEIGHT:
            words = fragment.text.strip()
            shown = words if len(words) <= 40 else f"{words[:40]}…"
            weight = f"{fragment.weight:g}" if math.isfinite(fragment.weight) else "beyond counting"
            raise PromptError(
                message(
                    "prompt_weight",
                    "the weight of {words!r} is {weight}, and must be from 0 to {most:g}; "
                    r"where brackets are meant as text, write \( and \), \[ and \]",
                    words=shown,
                    weight=weight,
                    most=MAX_WEIGHT,
                )
            )
