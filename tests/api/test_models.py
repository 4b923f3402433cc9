"""Asking for models over HTTP: what each can do, and why some cannot be used."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.catalog.conftest import checkpoint, folder
from tests.engine import tiny
from tests.serving import RunningServer, running
from tests.waiting import eventually


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with models of several kinds, whose queue nobody works on."""
    box = tmp_path_factory.mktemp("studio")
    (box / "models").mkdir()
    checkpoint(box, "repaint", "sd1-inpaint")
    checkpoint(box, "refine", "sdxl-refiner")
    folder(box, "empty")
    (box / "models" / "empty" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    (box / "models" / "old.ckpt").write_bytes(b"PK")
    tiny.sd3(box / "models" / "foreign")
    tiny.lcm(box / "models" / "distilled")
    with running(box, process="web") as started:
        yield started


def refused(server: RunningServer, path: str = "/txt2img", **fields: object) -> dict[str, str]:
    """Detail by pointer of a refused request."""
    answer = server.http.post(path, json={"prompt": "a fox", **fields})
    assert answer.status_code == 422, answer.text
    return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}


def test_models_tell_what_they_can_do(studio: RunningServer) -> None:
    listed = studio.http.get("/models").json()["models"]

    assert {model["name"]: (model["family"], model["tasks"]) for model in listed} == {
        "tintype": ("sd", ["txt2img", "img2img", "inpaint"]),
        "distilled": ("sd", ["txt2img", "img2img", "inpaint"]),
        "foreign": ("sd3", ["txt2img", "img2img", "inpaint"]),
        "refine": ("sdxl", ["img2img", "inpaint"]),
        "repaint": ("sd", ["inpaint"]),
    }


def test_a_task_that_the_model_cannot_do_is_refused_with_those_that_can(
    studio: RunningServer, photo: Path
) -> None:
    image = base64.b64encode(photo.read_bytes()).decode()

    drawn = refused(studio, model="repaint")["#/model"]
    changed = refused(studio, "/img2img", model="repaint", image=image)["#/model"]

    assert drawn == "repaint does inpaint, not txt2img; tintype, distilled, foreign can"
    able = "tintype, distilled, foreign, refine"
    assert changed == f"repaint does inpaint, not img2img; {able} can"


def test_guidance_is_rescaled_only_where_there_is_any(studio: RunningServer) -> None:
    for model in ("foreign", "distilled"):
        assert refused(studio, model=model, guidance_rescale=0.7) == {
            "#/guidance_rescale": f"{model} has no classifier-free guidance that this server "
            "could rescale"
        }
        accepted = studio.http.post(
            "/txt2img",
            json={"prompt": "a fox", "model": model, "guidance_rescale": 0},
            headers={"prefer": "respond-async"},
        )
        assert accepted.status_code == 202, accepted.text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "its part unet: diffusion_pytorch_model.safetensors is cut short or damaged"),
        ("old", "old.ckpt is a pickled checkpoint"),
    ],
)
def test_a_model_that_cannot_be_used_says_why(studio: RunningServer, name: str, words: str) -> None:
    detail = refused(studio, model=name)["#/model"]

    assert words in detail
    assert "there is no model" not in detail
    assert str(studio.data_dir) not in detail


def test_a_foreign_model_keeps_its_own_scheduler(studio: RunningServer) -> None:
    assert "'native'" in refused(studio, model="foreign", scheduler="ddim")["#/scheduler"]
    assert studio.submit(model="foreign")["request"]["scheduler"] == "native"
    assert studio.submit(model="foreign", scheduler="native")["status"] == "queued"
    assert "native" in refused(studio, scheduler="native")["#/scheduler"]


def test_a_model_that_could_not_be_loaded_says_why_and_restarts_nobody(tmp_path: Path) -> None:
    """Its files look whole, but a tensor is missing."""
    tiny.sd1(tmp_path / "models" / "sd1")
    weights = tmp_path / "models" / "sd1" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file(dict(list(tensors.items())[1:]), weights)

    def reason(server: RunningServer) -> str | None:
        listed = server.http.get("/models").json()["models"]
        (found,) = [model["broken"] for model in listed if model["name"] == "sd1"]
        return None if found is None else str(found)

    with running(tmp_path) as server:
        worker = server.child("worker").pid
        answer = server.http.post("/txt2img", json={"prompt": "a fox", "model": "sd1"})
        eventually(lambda: reason(server) is not None)

        assert answer.status_code == 500
        assert "lacks" in answer.json()["detail"]
        assert "lacks" in str(reason(server))
        assert server.txt2img().status_code == 200  # by another model
        assert server.child("worker").pid == worker
