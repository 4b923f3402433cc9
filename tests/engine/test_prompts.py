"""Encoding prompts: equality with diffusers' `encode_prompt`, any length, weights, the cache."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import (
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from darkroom.catalog.models import ModelCatalog
from darkroom.engine.prompt_syntax import PromptError
from darkroom.engine.prompts import MAX_WINDOWS, PromptEncoder, weigh

CPU = torch.device("cpu")


def tiny(cls: type[Any], layers: int) -> Any:
    """A text encoder of random weights for tintype's tokenizer."""
    config = CLIPTextConfig(
        vocab_size=2145,
        hidden_size=32,
        intermediate_size=37,
        projection_dim=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        hidden_act="gelu",
        bos_token_id=2143,
        eos_token_id=2144,
        pad_token_id=2144,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = cls(config).eval()
        norm = getattr(encoder, "text_model", encoder).final_layer_norm
        torch.nn.init.normal_(norm.bias, mean=0.3)  # trained models have such
    return encoder


def tokenizer(catalog: ModelCatalog, pad: str = "<|endoftext|>") -> Any:
    folder = catalog.find("tintype").path / "tokenizer"
    return CLIPTokenizer.from_pretrained(folder, pad_token=pad)


def sd2(catalog: ModelCatalog) -> Any:
    return StableDiffusionPipeline(
        vae=None,
        text_encoder=tiny(CLIPTextModel, layers=4),
        tokenizer=tokenizer(catalog, pad="!"),
        unet=None,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(catalog: ModelCatalog, zeros: bool = True) -> Any:
    return StableDiffusionXLPipeline(
        vae=None,
        text_encoder=tiny(CLIPTextModel, layers=3),
        text_encoder_2=tiny(CLIPTextModelWithProjection, layers=4),
        tokenizer=tokenizer(catalog),
        tokenizer_2=tokenizer(catalog, pad="!"),
        unet=None,
        scheduler=None,
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    )


def refiner(catalog: ModelCatalog) -> Any:
    return StableDiffusionXLImg2ImgPipeline(
        vae=None,
        text_encoder=None,
        text_encoder_2=tiny(CLIPTextModelWithProjection, layers=4),
        tokenizer=None,
        tokenizer_2=tokenizer(catalog, pad="!"),
        unet=None,
        scheduler=None,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


def tintype(catalog: ModelCatalog) -> Any:
    return StableDiffusionPipeline.from_pretrained(
        catalog.find("tintype").path, dtype=torch.float32, safety_checker=None
    )


@dataclass(frozen=True)
class Model:
    """A pipeline, our encoder of it, and how many layers clip_skip may leave out."""

    pipeline: Any
    encoder: PromptEncoder
    most_skipped: int

    @property
    def xl(self) -> bool:
        return hasattr(self.pipeline, "text_encoder_2")

    @torch.no_grad()
    def stock(
        self, prompt: str, negative: str | None = None, clip_skip: int | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Embeds and negative embeds, then SDXL's pooled ones, by diffusers."""
        first = getattr(self.pipeline, "text_encoder", None)
        if first is not None and not hasattr(first, "text_model"):
            object.__setattr__(first, "text_model", first)  # transformers 5 took it out
        found: tuple[torch.Tensor, ...] = self.pipeline.encode_prompt(
            prompt,
            device=CPU,
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            negative_prompt=negative,
            clip_skip=clip_skip,
        )
        return found


MODELS = {"tintype": (tintype, 6), "sd2": (sd2, 4), "sdxl": (sdxl, 2), "refiner": (refiner, 3)}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, catalog: ModelCatalog) -> Model:
    build, most_skipped = MODELS[request.param]
    pipeline = build(catalog)
    return Model(pipeline, PromptEncoder(pipeline, CPU), most_skipped)


@pytest.fixture
def small(catalog: ModelCatalog) -> Any:
    """A pipeline that a test may spoil."""
    return sd2(catalog)


# --- equality with diffusers -----------------------------------------------------------------

PLAIN = ["a red fox", "", "  A Red\nFOX, ", "một con cáo đỏ 🦊", "fox " * 75, "fox, " * 37]


@pytest.mark.parametrize("prompt", PLAIN)
def test_plain_prompts_are_encoded_as_by_diffusers(model: Model, prompt: str) -> None:
    embeds, negative, *pooled = model.stock(prompt, prompt)

    ours = model.encoder.encode(prompt)

    assert torch.equal(ours.embeds, embeds)
    assert ours.embeds.shape[1] == 77
    if model.xl:
        assert ours.pooled is not None
        assert torch.equal(ours.pooled, pooled[0])
    else:
        assert ours.pooled is None
    if prompt:
        ours = model.encoder.encode(prompt, negative=True)
        assert torch.equal(ours.embeds, negative)


def test_clip_skip_is_counted_as_by_diffusers(model: Model) -> None:
    seen = []
    for skipped in range(1, model.most_skipped + 1):
        embeds, negative, *pooled = model.stock("a red fox", "snow", clip_skip=skipped)

        ours = model.encoder.encode("a red fox", clip_skip=skipped)
        ours_negative = model.encoder.encode("snow", clip_skip=skipped, negative=True)

        assert torch.equal(ours.embeds, embeds)
        assert torch.equal(ours_negative.embeds, negative)  # knows no clip_skip
        if model.xl:
            assert ours.pooled is not None
            assert torch.equal(ours.pooled, pooled[0])
        assert not any(torch.equal(ours.embeds, other) for other in seen)
        seen.append(ours.embeds)


def test_clip_skip_of_more_layers_than_there_are_is_refused(model: Model) -> None:
    most = model.most_skipped

    with pytest.raises(PromptError, match=f"clip_skip is {most + 1}, and must be from 0 to {most}"):
        model.encoder.encode("a red fox", clip_skip=most + 1)


@pytest.mark.parametrize("build", [sdxl, refiner])
def test_an_empty_negative_prompt_is_as_the_model_was_trained(
    catalog: ModelCatalog, build: Any
) -> None:
    pipeline = build(catalog)
    model = Model(pipeline, PromptEncoder(pipeline, CPU), 0)
    _, embeds, _, pooled = model.stock("a red fox", None)

    ours = model.encoder.encode("", negative=True)
    positive = model.encoder.encode("")

    assert ours.pooled is not None
    assert torch.equal(ours.embeds, embeds)
    assert torch.equal(ours.pooled, pooled)
    assert bool(ours.embeds.any()) == (build is refiner)  # zeros in SDXL itself
    assert positive.embeds.any()


def test_a_text_encoder_that_is_trained_with_a_mask_gets_it(small: Any) -> None:
    small.text_encoder.config.use_attention_mask = True
    model = Model(small, PromptEncoder(small, CPU), 4)

    assert torch.equal(model.encoder.encode("a red fox").embeds, model.stock("a red fox")[0])
    assert torch.equal(model.encoder.encode("").embeds, model.stock("")[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("build", [sd2, sdxl])
def test_embeds_are_of_the_models_dtype(
    catalog: ModelCatalog, build: Any, dtype: torch.dtype
) -> None:
    pipeline = build(catalog)
    for encoder in (pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)):
        if encoder is not None:
            encoder.to(dtype)
    model = Model(pipeline, PromptEncoder(pipeline, CPU), 0)

    ours = model.encoder.encode("a red fox")

    assert ours.embeds.dtype is dtype
    assert torch.equal(ours.embeds, model.stock("a red fox")[0])
    assert model.encoder.encode("a (red:1.3) fox").embeds.dtype is dtype


# --- long prompts ----------------------------------------------------------------------------


def windows(model: Model, *texts: str) -> torch.Tensor:
    """Each text by diffusers, side by side."""
    return torch.cat([model.stock(text)[0] for text in texts], dim=1)


def test_long_prompts_are_encoded_window_by_window(model: Model) -> None:
    ours = model.encoder.encode("fox " * 200)

    assert torch.equal(ours.embeds, windows(model, "fox " * 75, "fox " * 75, "fox " * 50))
    if model.xl:
        assert ours.pooled is not None
        assert torch.equal(ours.pooled, model.stock("fox " * 75)[2])  # the first window's


@pytest.mark.parametrize(
    ("before", "behind", "ends_at_comma"),
    [
        (55, 30, True),  # the comma is the first of the last twenty
        (54, 30, False),
        (74, 30, True),  # it is the last token
        (75, 30, False),  # it begins the next window
        (60, 14, False),  # all fits one window
    ],
)
def test_a_full_window_ends_behind_a_comma_that_is_near(
    model: Model, before: int, behind: int, ends_at_comma: bool
) -> None:
    words = [*["fox"] * before, ",", *["house"] * behind]
    first = before + 1 if ends_at_comma else 75
    parts = [" ".join(words[:first]), " ".join(words[first:])]

    ours = model.encoder.encode(" ".join(words))

    assert torch.equal(ours.embeds, windows(model, *(part for part in parts if part)))


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("a red fox BREAK snow", ["a red fox", "snow"]),
        ("fox " * 75 + "BREAK snow", ["fox " * 75, "snow"]),
        ("fox " * 80 + "BREAK snow", ["fox " * 75, "fox " * 5, "snow"]),
        ("a BREAK BREAK b", ["a", "", "b"]),
        ("BREAK a", ["", "a"]),
        ("a BREAK ", ["a"]),
        ("BREAK", [""]),
        ("a red foxBREAK snow", ["a red foxBREAK snow"]),
    ],
)
def test_break_ends_a_window(model: Model, prompt: str, texts: list[str]) -> None:
    assert torch.equal(model.encoder.encode(prompt).embeds, windows(model, *texts))


def test_a_weight_goes_on_in_the_next_window(model: Model) -> None:
    text = "(" + "fox " * 100 + ":1.3)"

    ours = model.encoder.encode(text).embeds

    first = model.encoder.encode("(" + "fox " * 75 + ":1.3)").embeds
    second = model.encoder.encode("(" + "fox " * 25 + ":1.3)").embeds
    assert torch.equal(ours, torch.cat([first, second], dim=1))


def test_too_many_windows_are_refused(model: Model) -> None:
    with pytest.raises(PromptError, match=f"takes 1000 windows .* at most {MAX_WINDOWS}"):
        model.encoder.encode("BREAK " * 999 + "a")


def test_the_longest_prompt_of_brackets_is_encoded(small: Any) -> None:
    encoder = PromptEncoder(small, CPU)

    assert encoder.encode("(" * 8000).embeds.shape[1] == 107 * 77


# --- weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt", ["(a red fox:1.0)", "a (red:1) fox", "[(a red)] fox", "a () red fox"]
)
def test_weights_of_one_change_nothing(model: Model, prompt: str) -> None:
    assert torch.equal(
        model.encoder.encode(prompt).embeds, model.encoder.encode("a red fox").embeds
    )


@pytest.mark.parametrize("weight", [0, 0.5, 1.3, 2])
def test_a_weight_scales_its_words_against_the_others(model: Model, weight: float) -> None:
    plain_ = model.encoder.encode("a red fox")
    weighted = model.encoder.encode(f"a (red:{weight}) fox")

    width = model.pipeline.text_encoder.config.hidden_size if model.pipeline.text_encoder else 32
    for tower in range(plain_.embeds.shape[2] // width):  # each is weighed by itself
        part = slice(tower * width, (tower + 1) * width)
        before, after = plain_.embeds[0, :, part], weighted.embeds[0, :, part]
        scale = (after[0] / before[0]).median()
        others = [index for index in range(77) if index != 2]
        assert torch.allclose(after[others], before[others] * scale, atol=1e-5)
        assert torch.allclose(after[2], before[2] * weight * scale, atol=1e-5)
    if plain_.pooled is not None:
        assert weighted.pooled is not None
        assert torch.equal(weighted.pooled, plain_.pooled)


def test_weighing_restores_the_mean() -> None:
    hidden = torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(0)) - 0.3

    weighted = weigh(hidden, [1.0, *[1.5] * 30, *[1.0] * 46])

    assert float(weighted.mean()) == pytest.approx(float(hidden.mean()), rel=1e-4)


@pytest.mark.parametrize("mean", [0.0, 1e-4])
def test_a_mean_that_is_next_to_nothing_is_not_restored(mean: float) -> None:
    hidden = torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(0))
    hidden = hidden - hidden.mean() + mean

    weighted = weigh(hidden, [1.0, 2.0, *[1.0] * 75])

    assert torch.equal(weighted[:, 1], hidden[:, 1] * 2)
    assert torch.equal(weighted[:, 2:], hidden[:, 2:])


def test_weights_out_of_range_are_refused_when_encoding(model: Model) -> None:
    with pytest.raises(PromptError, match=r"write \\\( and \\\)"):
        model.encoder.encode("a photo (16:9)")


# --- the cache -------------------------------------------------------------------------------


@pytest.fixture
def calls(small: Any) -> list[int]:
    """Grows by one at every call of the text encoder."""
    made: list[int] = []
    small.text_encoder.register_forward_hook(lambda *_: made.append(1))
    return made


def test_what_was_encoded_is_remembered(small: Any, calls: list[int]) -> None:
    encoder = PromptEncoder(small, CPU)
    first = encoder.encode("a red fox")

    assert encoder.encode("a red fox") is first
    assert len(calls) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "a red fox "},
        {"clip_skip": 1},
        {"negative": True},
        {"variant": (("lora", 0.5),)},
    ],
)
def test_whatever_could_change_the_result_is_part_of_the_key(
    small: Any, calls: list[int], other: dict[str, Any]
) -> None:
    encoder = PromptEncoder(small, CPU)
    encoder.encode("a red fox")
    encoder.encode(**{"prompt": "a red fox", **other})

    assert len(calls) == 2


def test_a_changed_encoder_is_asked_again(small: Any) -> None:
    encoder = PromptEncoder(small, CPU)
    before = encoder.encode("a red fox").embeds
    with torch.no_grad():
        small.text_encoder.final_layer_norm.weight.mul_(2)

    assert torch.equal(encoder.encode("a red fox").embeds, before)
    after = encoder.encode("a red fox", variant="other").embeds
    assert not torch.equal(after, before)
    assert torch.equal(encoder.encode("a red fox").embeds, before)
    assert torch.equal(encoder.encode("a red fox", variant="other").embeds, after)


def test_the_least_recently_used_windows_are_forgotten(small: Any, calls: list[int]) -> None:
    encoder = PromptEncoder(small, CPU, capacity=3)
    for prompt in ("a", "b", "c", "a", "d"):  # d drives b out
        encoder.encode(prompt)
    del calls[:]

    encoder.encode("a")
    encoder.encode("c")
    encoder.encode("d")
    assert not calls
    encoder.encode("b BREAK c BREAK d")  # fills it
    encoder.encode("a")
    assert len(calls) == 4


def test_results_do_not_depend_on_what_was_encoded_before(catalog: ModelCatalog) -> None:
    prompts = ["a red fox", "fox " * 100, "a (red:1.4) fox", "", "a BREAK b"]
    pipeline = tintype(catalog)
    one, other = PromptEncoder(pipeline, CPU), PromptEncoder(pipeline, CPU)
    for prompt in prompts:
        one.encode(prompt)
    for prompt in reversed(prompts):
        other.encode(prompt)

    for prompt in prompts:
        assert torch.equal(one.encode(prompt).embeds, other.encode(prompt).embeds)


# --- textual inversion -----------------------------------------------------------------------


def test_text_is_expanded_before_it_is_tokenized(small: Any) -> None:
    encoder = PromptEncoder(small, CPU, lambda text, _: text.replace("style", "red fox"))

    ours = encoder.encode("a (style:1.2) BREAK style")

    plain_encoder = PromptEncoder(small, CPU)
    assert torch.equal(ours.embeds, plain_encoder.encode("a (red fox:1.2) BREAK red fox").embeds)


def test_a_token_that_only_one_tokenizer_knows_leaves_windows_alike(catalog: ModelCatalog) -> None:
    pipeline = sdxl(catalog)
    pipeline.tokenizer.add_tokens("<wordy>")
    pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer), mean_resizing=False)

    ours = PromptEncoder(pipeline, CPU).encode("<wordy>" * 40)

    assert ours.embeds.shape[1] > 77
    assert ours.embeds.shape[1] % 77 == 0
