"""LoRAs that prompts name in tags, on every route."""

from pathlib import Path
from typing import Any

import pytest

from darkroom.api import lora_tags
from darkroom.api.lora_tags import Tag
from tests.api.test_loras import lora, refused, save
from tests.serving import RunningServer, running


@pytest.mark.parametrize(
    ("prompt", "text", "scales"),
    [
        ("a fox <lora:ink>", "a fox", (1.0, 1.0)),
        ("a fox <lora:ink:0.5>", "a fox", (0.5, 0.5)),
        ("<lora:ink:0.5:0.8>a fox", "a fox", (0.8, 0.5)),
        ("a <lora:ink:te=0.5:unet=0.8>fox", "a fox", (0.8, 0.5)),
        ("a fox <lora:ink:unet=0.8>", "a fox", (0.8, 1.0)),
        ("a fox <lora:ink:0.5:unet=0.8>", "a fox", (0.8, 0.5)),
        ("a fox <lora:ink:te=0>", "a fox", (0.0, 0.0)),
        ("a fox <lyco:ink:-1>", "a fox", (-1.0, -1.0)),
        ("a fox <lora:ink:>", "a fox", (1.0, 1.0)),
        ("a fox <lora:ink:much>", "a fox", (None, None)),
        ("a fox <lora:ink:nan>", "a fox", (None, None)),
    ],
)
def test_a_tag_is_read_as_a1111_reads_it(
    prompt: str, text: str, scales: tuple[float | None, float | None]
) -> None:
    found, tags = lora_tags.split(prompt)

    assert found == text
    assert [(tag.name, tag.scale, tag.text_scale) for tag in tags] == [("ink", *scales)]


@pytest.mark.parametrize("prompt", ["a <b> fox", "<hypernet:x:1>", "a <lora:>", " a fox "])
def test_a_prompt_without_tags_stays_as_it_is(prompt: str) -> None:
    assert lora_tags.split(prompt) == (prompt, [])


def test_a_prompt_of_nothing_but_brackets_is_read_in_time() -> None:
    assert lora_tags.split("<lora:" * 1300)[1] == []
    tags: list[Tag] = lora_tags.split("<lora:a:" + ":" * 7000)[1]
    assert tags == []


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with LoRAs, whose queue nobody works on."""
    data_dir = tmp_path_factory.mktemp("shelf")
    (data_dir / "loras" / "style").mkdir(parents=True)
    save(data_dir / "loras" / "engraving.safetensors", lora(192))
    save(data_dir / "loras" / "style" / "wash.safetensors", lora(192))
    save(data_dir / "loras" / "anime.safetensors", lora(768))
    with running(data_dir, process="web") as server:
        yield server


def ask(server: RunningServer, prompt: str, path: str = "/txt2img", **fields: Any) -> Any:
    headers = {"prefer": "respond-async"}
    return server.http.post(path, json={"prompt": prompt, **fields}, headers=headers)


def test_tags_become_loras_by_their_own_names(shelf: RunningServer) -> None:
    answer = ask(shelf, "a fox <lora:engraving:0.5>, red <lora:wash:0.2:0.6>")

    assert answer.status_code == 202, answer.text
    request = answer.json()["request"]
    assert request["prompt"] == "a fox , red"
    assert request["loras"] == [
        {"name": "engraving", "scale": 0.5},
        {"name": "style/wash", "scale": 0.6, "text_scale": 0.2},
    ]


def test_tags_and_loras_add_up(shelf: RunningServer) -> None:
    loras = [{"name": "wash", "scale": 0.5, "text_scale": 0.1}]

    answer = ask(shelf, "a fox <lora:style/wash:0.25> <lora:wash>", loras=loras)

    assert answer.json()["request"]["loras"] == [
        {"name": "style/wash", "scale": 1.75, "text_scale": 1.35}
    ]


def test_a_lora_may_be_asked_for_by_another_of_its_names(shelf: RunningServer) -> None:
    answer = ask(shelf, "a fox", loras=[{"name": "wash"}])

    assert answer.json()["request"]["loras"] == [{"name": "style/wash", "scale": 1.0}]


def test_one_lora_under_two_names_is_asked_for_twice(shelf: RunningServer) -> None:
    answer = ask(shelf, "a fox", loras=[{"name": "wash"}, {"name": "style/wash"}])

    assert "twice" in refused(answer)["#/loras/1/name"]


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("<lora:engravings:1>", "did you mean engraving?"),
        ("<lora:anime:1>", "anime is for Stable Diffusion 1.x"),
        ("<lora:engraving:much>", "its scale is no number"),
    ],
)
def test_a_tag_that_cannot_be_applied_is_refused(
    shelf: RunningServer, tag: str, words: str
) -> None:
    detail = refused(ask(shelf, f"a fox {tag}"))["#/prompt"]

    assert detail.startswith(tag)
    assert words in detail


def test_a_tag_in_a_negative_prompt_is_noted(shelf: RunningServer) -> None:
    answer = ask(shelf, "a fox", negative_prompt="blurry <lora:engraving:1>")

    (note,) = answer.json()["notes"]
    assert note.startswith("<lora:engraving:1> in the negative prompt")
    assert answer.json()["request"]["negative_prompt"] == "blurry <lora:engraving:1>"


def test_a_repeat_with_the_same_tags_is_the_same_request(shelf: RunningServer) -> None:
    first, second = (
        shelf.http.post(
            "/txt2img",
            json={"prompt": "a fox <lora:engraving:0.5>"},
            headers={"prefer": "respond-async", "idempotency-key": "tags"},
        )
        for _ in range(2)
    )

    assert first.json()["id"] == second.json()["id"]


def test_a_form_may_have_tags_too(shelf: RunningServer, photo: Path) -> None:
    answer = shelf.http.post(
        "/img2img",
        data={"prompt": "a fox <lora:engraving:0.5>"},
        files={"image": photo.read_bytes()},
        headers={"prefer": "respond-async"},
    )

    assert answer.json()["request"]["loras"] == [{"name": "engraving", "scale": 0.5}]
