"""LoRAs over HTTP: what there is, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from safetensors.numpy import save_file

from darkroom_client import Client
from tests.serving import RunningServer, running

TO_K = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


def save(path: Path, shapes: dict[str, tuple[int, ...]], **metadata: str) -> None:
    zeros = {key: np.zeros(shape, np.float16) for key, shape in shapes.items()}
    save_file(zeros, path, metadata or None)


def lora(width: int) -> dict[str, tuple[int, ...]]:
    return {f"{TO_K}.lora_down.weight": (4, width), f"{TO_K}.lora_up.weight": (64, 4)}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with LoRAs and embeddings, whose queue nobody works on."""
    data_dir = tmp_path_factory.mktemp("shelf")
    (data_dir / "loras").mkdir()
    (data_dir / "embeddings").mkdir()
    save(data_dir / "loras" / "engraving.safetensors", lora(192))
    save(data_dir / "loras" / "watercolour.safetensors", lora(192))
    save(data_dir / "loras" / "anime.safetensors", lora(768))
    (data_dir / "loras" / "old.pt").write_bytes(b"PK\x03\x04")
    save(data_dir / "embeddings" / "velvia.safetensors", {"emb_params": (2, 192)})
    with running(data_dir, process="web") as server:
        yield server


def ask(server: RunningServer, *loras: dict[str, Any]) -> httpx2.Response:
    headers = {"prefer": "respond-async"}
    return server.http.post("/txt2img", json={"prompt": "a fox", "loras": loras}, headers=headers)


def refused(answer: httpx2.Response) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}


DISTILLED = {
    "lcm-lora-sdv1-5": (4, 0.0, "lcm"),
    "Hyper-SD15-8steps-CFG-lora": (8, None, "euler_a_sgm_uniform"),
    "sdxl_lightning_2step_lora": (2, 0.0, "euler_a_sgm_uniform"),
    "dmd2_sdxl_4step_lora_fp16": (4, 0.0, "lcm"),
    "tcd": (4, 0.0, "tcd"),
    "porsche-911-turbo": None,
    "lightning storm": None,
    "hyperrealistic_eyes": None,
}


def test_loras_for_few_steps_tell_what_they_take(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    for name in DISTILLED:
        save(tmp_path / "loras" / f"{name}.safetensors", lora(192))
    save(tmp_path / "loras" / "weights.safetensors", lora(192), ss_output_name="LCM_lora")
    with running(tmp_path, process="web") as server:
        found = {
            lora["name"]: lora["defaults"] for lora in server.http.get("/loras").json()["loras"]
        }

        names = ("num_inference_steps", "guidance_scale", "scheduler")
        told = {
            name: defaults and tuple(defaults[each] for each in names)
            for name, defaults in found.items()
        }
        assert told == {**DISTILLED, "weights": (4, 0.0, "lcm")}

        chosen = ask(server, {"name": "lcm-lora-sdv1-5"}).json()
        assert tuple(chosen["request"][name] for name in names) == (4, 0.0, "lcm")
        assert chosen["notes"] == [
            "lcm-lora-sdv1-5 is for few steps, and chose what the request left open: "
            "num_inference_steps 4, guidance_scale 0.0, scheduler lcm"
        ]

        said = {"prompt": "a fox <lora:tcd>", "num_inference_steps": 9, "guidance_scale": 2}
        headers = {"prefer": "respond-async"}
        mixed = server.http.post("/txt2img", json=said, headers=headers).json()
        assert tuple(mixed["request"][name] for name in names) == (9, 2.0, "tcd")
        assert mixed["notes"][0].endswith("left open: scheduler tcd")

        model = server.http.get("/models").json()["models"][0]["defaults"]
        for other in ({"name": "porsche-911-turbo"}, {"name": "tcd", "scale": 0}):
            plain = ask(server, other).json()
            assert {name: plain["request"][name] for name in names}.items() <= model.items()
            assert plain["notes"] == []


def test_loras_tell_which_models_they_fit(shelf: RunningServer) -> None:
    answer = shelf.http.get("/loras").json()

    fits = {lora["name"]: (lora["family"], lora["models"]) for lora in answer["loras"]}
    assert fits == {
        "anime": ("sd1", []),
        "engraving": ("width-192", ["tintype"]),
        "watercolour": ("width-192", ["tintype"]),
    }
    assert [(broken["file"], "pickle" in broken["reason"]) for broken in answer["broken"]] == [
        ("old.pt", True)
    ]


def test_embeddings_tell_which_models_they_fit(shelf: RunningServer) -> None:
    (velvia,) = shelf.http.get("/embeddings").json()["embeddings"]

    assert (velvia["name"], velvia["vectors"], velvia["models"]) == ("velvia", 2, ["tintype"])


def test_the_sdk_lists_both(shelf: RunningServer) -> None:
    with Client(shelf.url) as client:
        assert [lora.name for lora in client.loras()] == ["anime", "engraving", "watercolour"]
        assert [embedding.vectors for embedding in client.embeddings()] == [2]


def test_both_are_in_the_api_document(shelf: RunningServer) -> None:
    paths = shelf.http.get("/openapi.json").json()["paths"]

    for path, name in (("/loras", "LoraList"), ("/embeddings", "EmbeddingList")):
        content = paths[path]["get"]["responses"]["200"]["content"]
        assert name in content["application/json"]["schema"]["$ref"]


def test_a_request_keeps_its_loras(shelf: RunningServer) -> None:
    loras = [{"name": "engraving", "scale": 0.7}, {"name": "watercolour", "scale": -1.0}]

    answer = ask(shelf, *loras)

    assert answer.status_code == 202, answer.text
    assert answer.json()["request"]["loras"] == loras


def test_a_form_may_ask_for_loras(shelf: RunningServer, photo: Path) -> None:
    answer = shelf.http.post(
        "/img2img",
        data={"prompt": "a fox", "loras": '[{"name": "engraving"}]'},
        files={"image": photo.read_bytes()},
        headers={"prefer": "respond-async"},
    )

    assert answer.status_code == 202, answer.text
    assert answer.json()["request"]["loras"] == [{"name": "engraving", "scale": 1.0}]


def test_an_unknown_lora_is_met_with_a_hint(shelf: RunningServer) -> None:
    errors = refused(ask(shelf, {"name": "engravings"}))

    assert "did you mean engraving?" in errors["#/loras/0/name"]


def test_a_lora_for_another_family_is_told_apart(shelf: RunningServer) -> None:
    errors = refused(ask(shelf, {"name": "engraving"}, {"name": "anime"}))

    assert errors == {
        "#/loras/1/name": (
            "anime is for Stable Diffusion 1.x (text width 768), "
            "but tintype is a model of its own (text width 192)"
        )
    }


def test_a_lora_is_asked_for_once(shelf: RunningServer) -> None:
    errors = refused(ask(shelf, {"name": "engraving"}, {"name": "engraving", "scale": 0.5}))

    assert "twice" in errors["#/loras/1/name"]


def test_a_file_that_cannot_be_used_says_why(shelf: RunningServer) -> None:
    errors = refused(ask(shelf, {"name": "old"}))

    assert "pickle" in errors["#/loras/0/name"]


@pytest.mark.parametrize("name", ["../loras/engraving", "/etc/passwd", "engraving.safetensors"])
def test_a_name_is_no_path(shelf: RunningServer, name: str) -> None:
    assert "there is no LoRA" in refused(ask(shelf, {"name": name}))["#/loras/0/name"]


def test_every_wrong_lora_and_field_is_named_at_once(shelf: RunningServer) -> None:
    answer = shelf.http.post(
        "/txt2img",
        json={
            "prompt": "a fox",
            "scheduler": "magic",
            "loras": [{"name": "anime"}, {"name": "engraving"}, {"name": "nobody"}],
        },
    )

    assert refused(answer).keys() == {"#/scheduler", "#/loras/0/name", "#/loras/2/name"}
