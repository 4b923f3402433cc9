"""A textual inversion is a word of the prompt, and nothing to prompts without it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from darkroom.catalog.loras import AdapterCatalog
from darkroom.engine.base import EngineJob
from darkroom.engine.embeddings import Embeddings, load_embeddings
from darkroom.engine.prompts import PromptEncoder
from darkroom.requests import Lora
from tests.engine import lora_files, tiny
from tests.engine.conftest import developed, make_engine, request, run
from tests.engine.lora_files import outputs, tiny_sd, tiny_sdxl
from tests.engine.stock import assert_equal, difference

PROMPTS = ["a red fox", "", "drinking inkling, (ink:1.2)", "a fox " * 60]


def vectors(count: int, width: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Embeddings for a text encoder 32 wide, and one for SDXL in small."""
    save_file({"emb_params": vectors(1, 32, 1)}, tmp_path / "Kodachrome.safetensors")
    save_file({"emb_params": vectors(3, 32, 2)}, tmp_path / "bad-hands-5.safetensors")
    save_file({"<cat-toy>": vectors(1, 32, 3)[0]}, tmp_path / "cattoy.safetensors")
    pair = {"clip_l": vectors(2, 16, 4), "clip_g": vectors(2, 32, 5)}
    save_file(pair, tmp_path / "velvia.safetensors")
    return tmp_path


def load(pipeline: Any, folder: Path) -> Embeddings:
    return load_embeddings(pipeline, AdapterCatalog(folder / "none", folder).embeddings.entries())


@torch.inference_mode()
def said(pipeline: Any, embeddings: Embeddings, prompt: str) -> torch.Tensor:
    """What the first encoder makes of a prompt, (1, 77, width)."""
    ids = pipeline.tokenizer(
        embeddings.expand(prompt),
        padding="max_length",
        max_length=77,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    hidden: torch.Tensor = pipeline.text_encoder(ids).last_hidden_state
    return hidden


@pytest.mark.parametrize(
    "prompt",
    [
        "a fox, Kodachrome, sharp",
        "bad-hands-5",
        "cattoy and Kodachrome and bad-hands-5",
        "(Kodachrome:1.3) fox",
    ],
)
def test_words_mean_what_diffusers_makes_of_them(folder: Path, prompt: str) -> None:
    ours, theirs = tiny_sd(), tiny_sd()
    for name in ("Kodachrome", "bad-hands-5", "cattoy"):
        tensor = next(iter(load_file(folder / f"{name}.safetensors").values()))
        theirs.load_textual_inversion(tensor, token=name)

    embeddings = load(ours, folder)

    assert embeddings.names == ("Kodachrome", "bad-hands-5", "cattoy")
    expected = outputs(theirs, prompt)[0]
    assert torch.equal(said(ours, embeddings, prompt), expected)
    assert not torch.equal(outputs(tiny_sd(), prompt)[0], expected)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_without_the_words_keep_their_bytes(folder: Path, make: Any, prompt: str) -> None:
    save_file({"emb_params": vectors(2, 32)}, folder / "inkl.safetensors")
    plain, equipped = make(), make()

    embeddings = load(equipped, folder)

    assert embeddings.names
    assert embeddings.expand(prompt) == prompt
    for mine, other in zip(outputs(equipped, prompt), outputs(plain, prompt), strict=True):
        assert torch.equal(mine, other)


def test_sdxl_takes_pairs_and_finds_the_end_of_the_text(folder: Path) -> None:
    pipeline = tiny_sdxl()
    base = outputs(pipeline, "a fox")

    embeddings = load(pipeline, folder)
    prompt = embeddings.expand("a velvia fox")

    assert embeddings.names == ("velvia",)
    first, second = prompt.removeprefix("a ").removesuffix(" fox").split(" ")
    for encoder, tokenizer, key in (
        (pipeline.text_encoder, pipeline.tokenizer, "clip_l"),
        (pipeline.text_encoder_2, pipeline.tokenizer_2, "clip_g"),
    ):
        ids = tokenizer.convert_tokens_to_ids([first, second])
        rows = encoder.get_input_embeddings().weight[ids]
        assert torch.equal(rows, load_file(folder / "velvia.safetensors")[key])
    # The configuration says that the largest id is the end, which the new words' now are: the
    # pooled text would have been that of the word, with nothing after it.
    ours = outputs(pipeline, prompt)
    longer = outputs(pipeline, f"{prompt} in the snow")
    assert not torch.equal(ours[1], longer[1])
    assert not torch.equal(ours[1], base[1])


def test_several_vectors_are_written_out_once() -> None:
    embeddings = Embeddings({"grain": ("grain",), "fog": ("fog", "fog_1", "fog_2")})

    assert embeddings.expand("Fog, foggy (fog:1.2) grain") == (
        "fog fog_1 fog_2, foggy (fog fog_1 fog_2:1.2) grain"
    )
    once = embeddings.expand("a fog")
    assert embeddings.expand(once) == once


def test_the_longest_name_is_meant() -> None:
    embeddings = Embeddings({"bad": ("bad", "bad_1"), "bad-hands": ("bad-hands",)})

    assert embeddings.expand("bad-hands, bad") == "bad-hands, bad bad_1"


def test_words_are_found_whatever_their_case(folder: Path) -> None:
    pipeline = tiny_sd()
    embeddings = load(pipeline, folder)

    same = [said(pipeline, embeddings, f"a {word} fox") for word in ("Kodachrome", "kodachrome")]

    assert torch.equal(*same)


def test_none_is_needed(tmp_path: Path) -> None:
    pipeline = tiny_sd()
    rows = len(pipeline.text_encoder.get_input_embeddings().weight)

    embeddings = load(pipeline, tmp_path)

    assert embeddings.names == ()
    assert embeddings.expand("a fox") == "a fox"
    assert len(pipeline.text_encoder.get_input_embeddings().weight) == rows


@pytest.mark.parametrize(
    ("name", "count"), [("fox", 1), ("x", 3), ("bad-hands-5_1", 2), ("by (me)", 2), ("a.b!", 1)]
)
def test_any_name_may_be_a_files(folder: Path, name: str, count: int) -> None:
    """A word of the vocabulary, what looks like another's second vector, and punctuation."""
    save_file({"emb_params": vectors(count, 32)}, folder / f"{name}.safetensors")
    alone = tiny_sd()
    (folder / "alone").mkdir()
    save_file({"emb_params": vectors(count, 32)}, folder / "alone" / "zzyzx.safetensors")
    expected = said(alone, load(alone, folder / "alone"), "a house, zzyzx")

    pipeline = tiny_sd()
    embeddings = load(pipeline, folder)

    assert name in embeddings.names
    assert torch.equal(said(pipeline, embeddings, f"a house, {name}"), expected)
    other = said(pipeline, embeddings, "a house, bad-hands-5")
    assert not torch.equal(other, expected)


def test_of_two_names_that_differ_in_case_one_is_left_out(folder: Path) -> None:
    save_file({"emb_params": vectors(1, 32)}, folder / "kodachrome.safetensors")

    assert load(tiny_sd(), folder).names.count("Kodachrome") == 1
    assert "kodachrome" not in load(tiny_sd(), folder).names


def test_an_embedding_with_holes_is_left_out(folder: Path) -> None:
    save_file({"emb_params": vectors(1, 32) * torch.inf}, folder / "loud.safetensors")

    assert "loud" not in load(tiny_sd(), folder).names


# --- bundled with LoRAs --------------------------------------------------------------------


def zero_lora(path: Path, pipeline: Any, bundle: dict[str, torch.Tensor]) -> None:
    """A LoRA that changes no layer, with embeddings."""
    layers = lora_files.draw(pipeline, layers=r"attn1\.to_q$", parts=("unet",))
    tensors = load_file(lora_files.kohya(path, layers))
    still = {k: v * (0 if ".lora_up." in k else 1) for k, v in tensors.items()}
    save_file(still | {f"bundle_emb.{key}": value for key, value in bundle.items()}, path)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of both families, and for each the same embedding as a file and in a LoRA."""
    box = tmp_path_factory.mktemp("bundles")
    (box / "loras").mkdir()
    (box / "embeddings").mkdir()
    for name, widths in {"sd1": (tiny.HIDDEN,), "sdxl": (tiny.HIDDEN, tiny.HIDDEN_2)}.items():
        folder = tiny.BUILDERS[name](box / "models" / name)
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        rows = [vectors(2, width, 7) for width in widths]
        keys = ("emb_params",) if name == "sd1" else ("clip_l", "clip_g")
        save_file(
            dict(zip(keys, rows, strict=True)), box / "embeddings" / f"{name}-word.safetensors"
        )
        ends = ("string_to_param.*",) if name == "sd1" else keys
        bundle = {f"some (one).{end}": row for end, row in zip(ends, rows, strict=True)}
        zero_lora(box / "loras" / f"{name}.safetensors", pipeline, bundle)
    return box


@pytest.mark.parametrize("model", ["sd1", "sdxl"])
def test_embeddings_in_a_lora_are_words_of_the_jobs_that_use_it(bundles: Path, model: str) -> None:
    def job(name: str, word: str, *loras: str, negative: str = "") -> EngineJob:
        size = {"width": tiny.SIZE, "height": tiny.SIZE, "num_inference_steps": 2}
        uses = tuple(Lora(name=lora) for lora in loras)
        prompts = {"prompt": f"a fox, {word}", "negative_prompt": negative}
        return EngineJob(name, request(model=model, loras=uses, **prompts, **size))

    word = f"{model}-word"
    jobs = [
        job("file", word),
        job("lora", "Some (one)", model),
        job("without the lora", "some (one)"),
        job("file, negative", "x", negative=word),
        job("lora, negative", "x", model, negative="some (one)"),
        job("neither", "x"),
    ]

    events = run(make_engine(bundles), *jobs)

    pictures = {each.id: developed(events, each.id)[0] for each in jobs}
    assert_equal(pictures["lora"], pictures["file"])
    assert_equal(pictures["lora, negative"], pictures["file, negative"])
    assert difference(pictures["without the lora"], pictures["file"]) > 2
    assert difference(pictures["neither"], pictures["file, negative"]) > 2


def test_an_embedding_of_ones_own_goes_before_a_loras(folder: Path) -> None:
    pipeline = tiny_sd()
    embeddings = load(pipeline, folder)

    words = embeddings.learn("ink", {"kodachrome": [vectors(2, 32, 8)], "wide": [vectors(1, 40)]})

    assert list(words) == ["kodachrome"]  # the other is of another encoder
    assert embeddings.learn("ink", {}) is words
    prompt = "a Kodachrome fox"
    assert embeddings.expand(prompt, words) == embeddings.expand(prompt)


def test_an_embedding_in_a_lora_with_holes_is_refused() -> None:
    with pytest.raises(ValueError, match="infinite"):
        load_embeddings(tiny_sd(), ()).learn("ink", {"loud": [vectors(1, 32) * torch.inf]})


def test_a_letter_that_is_like_anothers_small_form_is_another() -> None:
    embeddings = Embeddings({"istanbul": ("x",)})

    assert embeddings.expand("ıstanbul, İstanbul, ISTANBUL") == "ıstanbul, İstanbul, x"


def test_the_vectors_of_an_embedding_are_in_one_window(folder: Path) -> None:
    """A1111 begins another one for what does not fit whole."""
    pipeline = tiny_sd()
    embeddings = load(pipeline, folder)
    encoder = PromptEncoder(pipeline, torch.device("cpu"), embeddings.expand, embeddings.name)

    def encoded(prompt: str) -> torch.Tensor:
        return encoder.encode(prompt).embeds

    whole = encoded("fox " * 74 + "bad-hands-5 house")

    assert torch.equal(
        whole, torch.cat([encoded("fox " * 74), encoded("bad-hands-5 house")], dim=1)
    )
