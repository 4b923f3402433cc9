"""Asking for models over HTTP: what each can do, and why some cannot be used."""

import base64
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from darkroom_client import Client
from tests.catalog.conftest import checkpoint, folder, write
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


def test_a_model_of_one_file_is_told_by_its_hash(studio: RunningServer) -> None:
    path = studio.data_dir / "models" / "repaint.safetensors"

    def listed(name: str) -> dict[str, object]:
        models = studio.http.get("/models").json()["models"]
        (found,) = [model for model in models if model["name"] == name]
        return dict(found)

    eventually(lambda: listed("repaint")["sha256"] is not None)
    digest = sha256(path.read_bytes()).hexdigest()
    assert listed("repaint")["sha256"] == digest
    assert listed("repaint")["autov2"] == digest[:10]
    assert listed("foreign")["sha256"] is None
    a1111 = studio.http.get("/sdapi/v1/sd-models").json()
    hashes = {model["model_name"]: (model["hash"], model["sha256"]) for model in a1111}
    assert hashes["repaint"] == (digest[:10], digest)


def test_sizes_are_told_and_memory_while_a_worker_runs(studio: RunningServer) -> None:
    for model in studio.http.get("/models").json()["models"]:
        assert model["size_bytes"] > 0
        assert (model["memory_bytes"], model["fits"], model["resident"]) == (None, None, False)


def test_a_picture_beside_a_model_is_its_thumbnail(studio: RunningServer, photo: Path) -> None:
    folder = studio.data_dir / "models" / "style"
    folder.mkdir()
    checkpoint(studio.data_dir, "style/pictured", "sd1-inpaint")
    (folder / "pictured.preview.jpeg").write_bytes(photo.read_bytes())
    checkpoint(studio.data_dir, "style/blank", "sd1-inpaint")
    (folder / "blank.png").write_bytes(b"no picture")

    listed = {m["name"]: m["thumbnail_url"] for m in studio.http.get("/models").json()["models"]}
    answer = studio.http.get(listed["style/pictured"])
    same = studio.http.get(
        listed["style/pictured"], headers={"if-none-match": answer.headers["etag"]}
    )
    percent = studio.http.get("/models/style%2Fpictured/thumbnail")
    with Client(studio.url) as client:
        of_sdk = client.thumbnail("style/pictured")
    missing = [
        studio.http.get(f"/models/{n}/thumbnail") for n in ("none", "repaint", "style/blank")
    ]
    shutil.rmtree(folder)

    assert answer.headers["content-type"] == "image/webp"
    assert answer.content[8:12] == b"WEBP"
    assert same.status_code == 304
    assert percent.content == of_sdk == answer.content
    assert [each.status_code for each in missing] == [404, 404, 404]


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


@pytest.mark.slow
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


def test_a_picture_beside_a_lora_is_its_thumbnail(studio: RunningServer, photo: Path) -> None:
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    shapes = {f"{layer}.lora_down.weight": (4, 768), f"{layer}.lora_up.weight": (320, 4)}
    folder = studio.data_dir / "loras" / "by hand"
    folder.mkdir(parents=True)
    write(folder / "ink.safetensors", shapes)
    write(folder / "plain.safetensors", shapes)
    (folder / "ink.png").write_bytes(photo.read_bytes())

    listed = studio.http.get("/loras").json()["loras"]
    urls = {lora["name"]: lora["thumbnail_url"] for lora in listed}
    answer = studio.http.get(urls["by hand/ink"])
    with Client(studio.url) as client:
        of_sdk = client.lora_thumbnail("by hand/ink")
    none = studio.http.get("/loras/by%20hand%2Fplain/thumbnail")
    shutil.rmtree(folder)

    assert answer.content[8:12] == b"WEBP"
    assert answer.content == of_sdk
    assert urls["by hand/plain"] is None
    assert none.status_code == 404


def test_a_picture_of_100_megapixels_is_not_decoded(studio: RunningServer) -> None:
    """A PNG of 100 kB, which would take 300 MB."""
    folder = studio.data_dir / "models" / "bomb"
    folder.mkdir()
    checkpoint(studio.data_dir, "bomb/large", "sd1-inpaint")
    Image.new("1", (10_000, 10_000)).save(folder / "large.png")
    web = psutil.Process(studio.process.pid)
    before = web.memory_info().rss

    answer = studio.http.get("/models/bomb%2Flarge/thumbnail")
    taken = web.memory_info().rss - before
    shutil.rmtree(folder)

    assert answer.status_code == 404
    assert taken < 64 * 2**20
