"""`explain`: what it says is what the networks do, and the pictures are those that it explains.

Of each family that can be looked into, on tiny random weights. The daily ones are those whose
networks are given a prompt unlike the others: a UNet, lists, and a text behind the picture.
"""

import base64
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel

from darkroom.engine.attention_maps import grid, rollout
from darkroom.engine.base import EngineEvent, EngineJob, ImageReady, JobWarning
from darkroom.engine.engine import DiffusersEngine
from darkroom.engine.explain import recorder, unets
from darkroom.engine.explain.attention import Attention
from darkroom.engine.explain.recorder import Moment, Prompt, Recorder
from darkroom.engine.explain.tokens import MAX_TOKENS, Reading
from darkroom.requests import Task
from darkroom.responses import MAX_EXPLANATION_BYTES, ExplainedImage, TokenKind, TokenMaps
from tests.engine import tiny, tiny_families
from tests.engine.conftest import developed, make_engine, request, run
from tests.engine.plain_attention import watching
from tests.engine.stock import assert_equal

PROMPT = "a red fox"
UNETS = ("sd1", "sdxl")
TRANSFORMERS = (
    "sd3",
    "auraflow",
    "flux_dev",
    "flux_kontext",
    "flux2_klein",
    "flux2_dev",
    "z_image",
    "qwen_image",
)
DAILY = ("sd1", "sd3", "z_image", "flux2_klein")
MODELS = [
    pytest.param(name, marks=() if name in DAILY else pytest.mark.slow)
    for name in (*UNETS, *TRANSFORMERS)
]
COARSE = ("flux_kontext", "qwen_image")  # whose VAE has a latent pixel for 8×8, and not for 4×4
# Whose latents have as many channels as real ones.
SHOWN = ("sd1", "sdxl", "sd3", "auraflow", "z_image")
NEGATIVE = {"guidance_scale": 4.0, "negative_prompt": "a blue house"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def models(data: Path) -> DiffusersEngine:
    """An engine with a tiny model of each family."""
    folder = data / "models"
    for name in UNETS:
        tiny.small_by_default(tiny.BUILDERS[name](folder / name))
    for name in TRANSFORMERS:
        tiny.small_by_default(tiny_families.BUILDERS[name](folder / name))
    return make_engine(data)


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The maps of the pictures that are explained, before they are made bytes of."""
    kept: list[Tensor] = []

    def keep(maps: Tensor) -> TokenMaps:
        kept.append(maps)
        return recorder.TokenMaps.model_construct()

    monkeypatch.setattr(recorder, "packed", keep)
    monkeypatch.setattr(recorder, "ExplainedMaps", lambda **_: None)
    monkeypatch.setattr(recorder, "ExplainedImage", lambda **values: values)
    return kept


def asked(model: str, **fields: Any) -> EngineJob:
    values = {"prompt": PROMPT, "width": 64, "height": 48, "num_inference_steps": 4}
    scheduler = {} if model in UNETS else {"scheduler": "native"}
    values |= {"model": model, **scheduler, "explain": True, "exact": True, **fields}
    return EngineJob("job", request(Task.TXT2IMG, **values))


def explained(events: list[EngineEvent], job_id: str = "job") -> list[ExplainedImage]:
    warned = [event for event in events if isinstance(event, JobWarning)]
    assert not warned, warned
    ready = [e for e in events if isinstance(e, ImageReady) and e.job_id == job_id]
    found = [event.explanation for event in sorted(ready, key=lambda event: event.index)]
    assert None not in found
    return found  # type: ignore[return-value]


def maps_of(given: TokenMaps | None) -> np.ndarray:
    assert given is not None
    data = np.frombuffer(base64.b64decode(given.data), np.uint8).reshape(given.shape)
    return data / 255 * np.array(given.peaks)[:, None, None]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_maps_are_the_softmax_of_queries_and_keys(
    models: DiffusersEngine, numbers: list[Tensor], name: str
) -> None:
    run(models, asked(name, explain=False))  # loads it
    family = models._models.resident(name).family
    network = family.unet if name in UNETS else family._any.transformer

    with watching(network) as plain:
        events = run(models, asked(name, **NEGATIVE))

    (made,) = explained(events)
    every, last = expected(name, plain.calls, made["tokens"])
    torch.testing.assert_close(numbers[1], every, rtol=0, atol=1e-5)
    torch.testing.assert_close(numbers[0], last, rtol=0, atol=1e-5)


def expected(name: str, calls: list[list[Tensor]], tokens: Any) -> tuple[Tensor, Tensor]:
    """The means of all four steps and of the last one, (tokens and padding, h, w)."""
    steps = [torch.stack(call_maps(name, call)).mean(0) for call in calls_of_prompt(name, calls)]
    assert len(steps) == 4
    # The tokens of these prompts come first but for SD3's, whose second text begins at 77.
    count = len([token for token in tokens if token.kind is not TokenKind.PADDING])
    places = list(range(count))
    if name == "sd3":
        clip = next(n for n, token in enumerate(tokens) if token.kind is TokenKind.END) + 1
        places = [*range(clip), *range(77, 77 + count - clip)]
    if name == "flux2_dev":  # padding stands in front
        places = list(range(steps[0].shape[0] - count, steps[0].shape[0]))

    def by_token(maps: Tensor) -> Tensor:
        rest = [place for place in range(len(maps)) if place not in places]
        return torch.cat([maps[places], maps[rest].sum(0, keepdim=True)]) if rest else maps[places]

    return by_token(torch.stack(steps).mean(0)), by_token(steps[-1])


def calls_of_prompt(name: str, calls: list[list[Tensor]]) -> list[list[Tensor]]:
    """Of each step, each layer's (queries, keys) in the row of the prompt."""
    guided_apart = name in ("flux_dev", "flux_kontext", "flux2_klein", "qwen_image")
    row = -1 if name in ("sd1", "sdxl", "sd3", "auraflow") else 0
    return [[layer[row] for layer in call] for call in calls[:: 2 if guided_apart else 1]]


def call_maps(name: str, layers: list[Tensor]) -> list[Tensor]:
    """Of one call's layers, (positions of the text, h, w), all of one size."""
    if name in UNETS:
        size = (12, 16)
        grids = [grid(size, len(layer)) for layer in layers]
        largest = max(grids, key=math.prod)
        shaped = [layer.T.unflatten(1, cells) for layer, cells in zip(layers, grids, strict=True)]
        return [
            functional.interpolate(layer[None], largest, mode="bilinear")[0] for layer in shaped
        ]
    size = (3, 4) if name in COARSE else (6, 8)
    cells = math.prod(size)
    made = []
    for layer in layers:
        match name:
            case "sd3":
                part = layer[:cells, cells:]
            case "auraflow":  # behind eight positions of the network's own
                part = layer[-cells:, 8:-cells]
            case "z_image":
                filled = math.ceil(cells / 32) * 32
                part = layer[:cells, filled:]
            case _:
                part = layer[-cells:, :-cells]
        made.append(part.T.unflatten(1, size))
    return made


@pytest.mark.parametrize("name", MODELS)
def test_the_picture_is_the_same_as_without(models: DiffusersEngine, name: str) -> None:
    (plain,) = developed(run(models, asked(name, explain=False)))
    events = run(models, asked(name))

    (looked_into,) = developed(events)
    (made,) = explained(events)
    assert looked_into.tobytes() == plain.tobytes()
    assert [word.text for word in made.words] == ["a", "red", "fox"]
    for number, word in enumerate(made.words):
        assert {made.tokens[token].word for token in word.tokens} == {number}
        assert "".join(made.tokens[token].text for token in word.tokens) == word.text
    for maps in (made.maps.all_steps, made.maps.last_quarter):
        assert maps.shape[0] == len(made.tokens) == len(maps.peaks)
        assert maps_of(maps).sum(0).max() <= 1 + 1e-2
    assert (made.maps.carried_back is not None) == (name in UNETS)
    assert [step.index for step in made.steps] == [0, 1, 2, 3]
    for step in made.steps:
        pictures = (step.latents, step.predicted_noise, step.guess)
        assert all(pictures) == any(pictures) == (name in SHOWN)
        assert step.signal >= 0
        assert step.noise >= 0
    assert made.seconds.denoise > 0


@pytest.mark.parametrize("name", MODELS)
def test_in_company_each_is_explained_by_itself(models: DiffusersEngine, name: str) -> None:
    """Prompts of other lengths beside it, which pad its text or its row."""
    (alone,) = explained(run(models, asked(name)))
    (plain,) = developed(run(models, asked(name, explain=False)))
    other = asked(name, exact=False, prompt="a very old house in the snow, at night", seed=99)
    jobs = [asked(name, exact=False), EngineJob("other", other.request)]
    jobs.append(EngineJob("plain", asked(name, exact=False, explain=False).request))

    events = run(models, *jobs)

    assert_equal(developed(events)[0], plain)
    assert_equal(developed(events, "plain")[0], plain)
    (made,) = explained(events)
    (beside,) = explained(events, "other")
    assert made.tokens == alone.tokens
    assert [word.text for word in beside.words][-2:] == ["at", "night"]
    for which in ("all_steps", "last_quarter", "carried_back"):
        ours, its = getattr(made.maps, which), getattr(alone.maps, which)
        if its is not None:
            np.testing.assert_allclose(maps_of(ours), maps_of(its), atol=5e-3)


class Busy:
    """Attention of so many places to so many positions, all at random."""

    def __init__(self, places: int, positions: int) -> None:
        draw = torch.Generator().manual_seed(5)
        self.attention = Attention(
            torch.randn((4, places, 8), generator=draw),
            torch.randn((4, positions, 8), generator=draw),
            None,
            1.0,
        )


def reading(tokens: int) -> Reading:
    made = Reading()
    text = " ".join(["word"] * tokens)
    words = made.words_of(text)
    made.read(text, words.spans, words)
    made.pad(3)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(("images", "tokens"), [(1, 12), (1, 600), (8, 12), (8, 600)])
def test_an_explanation_has_no_more_bytes_than_its_part(images: int, tokens: int) -> None:
    """Of the largest grid, with step pictures as large as noise makes them."""
    said = Prompt(reading(tokens))
    noise = bytes(range(256)) * 117  # 30 kB
    seen = Recorder(0, 7, images, lambda: said, lambda _: noise)
    busy = Busy(128 * 96, tokens + 3).attention
    for step in range(9):
        seen.begin()
        seen.see(busy, (96, 128))
        seen.step(step, 9, lambda: Moment(1.0, 0.5, 0.5, *[torch.zeros(1)] * 3))

    made = seen.explanation(0.1)

    assert made is not None
    assert len(made.model_dump_json()) <= MAX_EXPLANATION_BYTES / images
    count, height, width = made.maps.all_steps.shape
    assert count == min(tokens, MAX_TOKENS) + 1
    assert max(height, width) <= 64
    assert width / height == pytest.approx(4 / 3, rel=0.15)
    assert [made.steps[0].index, made.steps[-1].index] == [0, 8]


def test_a_recorder_holds_no_more_after_many_steps() -> None:
    """Nor after many layers, or when calls fail and are made again."""
    said = Prompt(reading(9))
    busy = Busy(64, 12).attention
    seen = Recorder(0, 7, 1, lambda: said, lambda _: b"")
    again = Recorder(0, 7, 1, lambda: said, lambda _: b"")
    held = []
    for step in range(40):
        again.begin()
        again.see(busy, (8, 8))  # of a call that ran out of memory
        for one in (seen, again):
            one.begin()
            for _ in range(5):
                one.see(busy, (8, 8))
            one.step(step, 40, lambda: Moment(1.0, 0.5, 0.5, *[torch.zeros(1)] * 3))
        held.append(sum(maps.nbytes for sums in seen._sums.values() for maps in sums.maps.values()))

    assert held[0] == held[20]
    assert held[-1] == 2 * held[0]  # of all steps, and of the last quarter
    first, second = seen.explanation(0.0), again.explanation(0.0)
    assert first is not None
    assert second is not None
    assert second.maps == first.maps
    assert maps_of(first.maps.all_steps).sum(0) == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_what_cannot_be_explained_is_drawn_all_the_same(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"prompt": PROMPT, "num_inference_steps": 3, "exact": True}
    (plain,) = developed(run(engine, EngineJob("job", request(**fields))))

    def broken(*_: object) -> None:
        raise ValueError("the grid is odd")

    monkeypatch.setattr(unets, "grid", broken)
    events = run(engine, EngineJob("job", request(explain=True, **fields)))

    (picture,) = developed(events)
    assert picture.tobytes() == plain.tobytes()
    assert [e.explanation for e in events if isinstance(e, ImageReady)] == [None]
    (warning,) = [event for event in events if isinstance(event, JobWarning)]
    assert warning.note.code == "explain_failed"
    assert warning.note.values == {"reason": "the grid is odd"}


def test_embeddings_hold_of_tokens_what_rollout_says(models: DiffusersEngine, data: Path) -> None:
    """Compared with the encoder's own weights, which only its eager attention hands out."""
    run(models, asked("sd1"))
    family = models._models.resident("sd1").family
    pipeline = next(iter(family._pipelines.values()))
    folder = data / "models" / "sd1" / "text_encoder"
    eager = CLIPTextModel.from_pretrained(folder, attn_implementation="eager")
    ids = pipeline.tokenizer(PROMPT, padding="max_length", return_tensors="pt").input_ids

    with torch.inference_mode():
        prompt = family._prompts.explain(PROMPT)
        attentions = eager(ids, output_attentions=True).attentions

    assert prompt.carry is not None
    torch.testing.assert_close(prompt.carry, rollout(attentions), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a (red:1.3) fox, BREAK in snow", ["a", "red", "fox", "in", "snow"]),
        ("", []),
        ("fox's half-eaten pizza", ["fox's", "half-eaten", "pizza"]),
        ("狐狸 fox in 雪", ["狐", "狸", "fox", "in", "雪"]),
    ],
)
def test_words_of_prompts(engine: DiffusersEngine, prompt: str, words: list[str]) -> None:
    fields = {"prompt": prompt, "num_inference_steps": 1, "explain": True}
    (made,) = explained(run(engine, EngineJob("job", request(**fields))))

    assert [word.text for word in made.words] == words
    windows = prompt.count("BREAK") + 1
    assert sum(token.kind is TokenKind.START for token in made.tokens) == windows
    assert made.tokens[-1].kind is TokenKind.PADDING
    total = maps_of(made.maps.carried_back).sum(0)
    assert total == pytest.approx(1, abs=0.02)
