"""The syntax of prompts: every character's weight, in linear time, never an error."""

import math
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from darkroom.engine.prompt_syntax import Fragment, Passage, PromptError, check, parse
from tests.effort import sampled

DOCS = Path(__file__).parents[2] / "docs" / "prompts.md"
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def spelled(passages: tuple[Passage, ...]) -> str:
    """As docs/prompts.md writes it."""

    def one(fragment: Fragment) -> str:
        weight = "" if fragment.weight == 1 else f" ×{round(fragment.weight, 3):g}"
        return " ".join(fragment.text.split()) + weight

    return " ‖ ".join(
        " · ".join(one(fragment) for fragment in passage if fragment.text.strip())
        for passage in passages
    )


EXAMPLES = re.findall(r"^\| `(.+)` \| (.+) \|$", DOCS.read_text(), re.MULTILINE)


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) == 13


@pytest.mark.parametrize(("prompt", "meaning"), EXAMPLES)
def test_the_page_is_right(prompt: str, meaning: str) -> None:
    assert spelled(parse(prompt)) == meaning


@pytest.mark.parametrize(
    ("prompt", "meaning"),
    [
        (
            "a (((house:1.3)) (hill:0.5), ((sky)).",
            "a ( · house ×1.43 · hill ×0.5 · , · sky ×1.21 · .",
        ),
        ("(a [b) c]", "a ×1.1 · b · c ×0.909"),  # round and square pair up by themselves
        ("(a: 1.3 )", "a ×1.3"),
        ("(a:.5)", "a ×0.5"),
        ("(a:1.)", "a"),
        ("(a:1.2.3)", "a:1.2.3 ×1.1"),
        ("(a:1e3)", "a:1e3 ×1.1"),
        ("(a:)", "a: ×1.1"),
        ("a:1.3)", "a:1.3)"),
        ("[a:1.3]", "a:1.3 ×0.909"),
        (r"(a\)b)", "a)b ×1.1"),
        (r"a\b \\(c)", "a\\b \\ · c ×1.1"),
        ("((a:0.5):2)", "a"),
        ("()", ""),
        ("", ""),
        ("BREAK", " ‖ "),
        ("a BREAK BREAK,b", "a ‖  ‖ ,b"),
    ],
)
def test_corners(prompt: str, meaning: str) -> None:
    assert spelled(parse(prompt)) == meaning


Weighed = list[tuple[str, float]]  # every character and its weight

plain = st.text("abc dé狐,", min_size=1).map(lambda text: (text, [(c, 1.0) for c in text]))
escaped = st.sampled_from("()[]\\").map(lambda char: ("\\" + char, [(char, 1.0)]))


def bracketed(inner: st.SearchStrategy[tuple[str, Weighed]]) -> Any:
    def wrap(written: str, meant: Weighed, weight: float | None, square: bool) -> Any:
        if square:
            return f"[{written}]", [(char, old / 1.1) for char, old in meant]
        if weight is None:
            return f"({written})", [(char, old * 1.1) for char, old in meant]
        return f"({written}:{weight})", [(char, old * weight) for char, old in meant]

    one = st.builds(
        lambda pair, weight, square: wrap(*pair, weight, square),
        inner,
        st.sampled_from([None, 0.5, 1.0, 1.25, 2.0]),
        st.booleans(),
    )
    several = st.lists(inner, max_size=4).map(
        lambda pairs: ("".join(w for w, _ in pairs), [c for _, meant in pairs for c in meant])
    )
    return one | several


@patient
@given(st.recursive(plain | escaped, bracketed, max_leaves=12))
def test_every_character_gets_the_product_of_its_brackets(prompt: tuple[str, Weighed]) -> None:
    written, meant = prompt

    (passage,) = parse(written)

    read = [(char, fragment.weight) for fragment in passage for char in fragment.text]
    assert [char for char, _ in read] == [char for char, _ in meant]
    assert [weight for _, weight in read] == pytest.approx([w for _, w in meant], abs=1e-6)
    assert all(a.weight != b.weight for a, b in pairwise(passage))


@patient
@given(st.text(st.characters(exclude_characters="()[]\\"), min_size=1))
def test_text_without_markup_is_one_fragment(text: str) -> None:
    assume("BREAK" not in text)

    assert parse(text) == ((Fragment(text, 1.0),),)


@patient
@given(st.lists(st.sampled_from([*"()[]\\:.-1 a,", " BREAK ", ":2)"])).map("".join) | st.text())
def test_nothing_but_markup_is_taken_out(prompt: str) -> None:
    left = iter(prompt)

    for passage in parse(prompt):
        for fragment in passage:
            assert all(char in left for char in fragment.text), "in the prompt's order"


MANY = 100_000


@pytest.mark.parametrize(
    "prompt",
    sampled(
        [
            *(unit * MANY for unit in ("(", "[", ")", "()", "([", "(:", "((a", ":1)", "\\")),
            "BREAK " * MANY,
            *(start + unit * MANY for start in ("", "(:", "(:1.") for unit in ("1", " ", ": ")),
            *(start + ":1 " * MANY for start in ("", "(:", "(:1.")),
        ],
        one_in=4,
    ),
    ids=lambda prompt: prompt[:6],
)
def test_parsing_takes_linear_time(prompt: str) -> None:
    started = time.process_time()
    parse(prompt[:MANY])

    assert time.process_time() - started < 5  # quadratic takes half a minute


@pytest.mark.parametrize("brackets", sampled(["()", "[]"]))
def test_nesting_has_no_limit_but_the_weight(brackets: str) -> None:
    opening, closing = (bracket * MANY for bracket in brackets)

    assert parse(opening + closing) == ((),)
    ((fragment,),) = parse(f"{opening}x{closing}")
    assert fragment in (Fragment("x", math.inf), Fragment("x", 0.0))


def test_a_weight_beyond_counting_is_refused() -> None:
    passages = parse("(" * MANY + "[" * MANY + "x" + "]" * MANY + ")" * MANY)

    with pytest.raises(PromptError, match="'x' is beyond counting, and must be from 0 to 5"):
        check(passages)


@pytest.mark.parametrize(
    "prompt", ["(x:5.1)", "(x:-0.5)", "((x:3):2)", "(((((((((((((((((x)))))))))))))))))"]
)
def test_weights_out_of_range_are_refused(prompt: str) -> None:
    with pytest.raises(PromptError, match=r"the weight of 'x' is \S+, and must be from 0 to 5"):
        check(parse(prompt))
