"""Hashes of models and LoRAs: told by jobs, and compared with those in requests and pictures."""

import base64
import io
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.api.test_loras import lora, save
from tests.catalog.conftest import checkpoint
from tests.serving import RunningServer, running
from tests.waiting import eventually

API = "/sdapi/v1"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with models of one file and a LoRA, all hashed, whose queue nobody works on."""
    data_dir = tmp_path_factory.mktemp("shelf")
    (data_dir / "models").mkdir()
    (data_dir / "loras").mkdir()
    checkpoint(data_dir, "sketch", "sd1")
    checkpoint(data_dir, "refine", "sdxl-refiner")
    save(data_dir / "loras" / "engraving.safetensors", lora(192))
    with running(data_dir, process="web") as server:
        eventually(lambda: all(model_hash(server, name) for name in ("sketch", "refine")))
        eventually(lambda: "lora_hashes" in server.submit(loras=[{"name": "engraving"}])["request"])
        yield server


def model_hash(server: RunningServer, name: str) -> Any:
    models = server.http.get("/models").json()["models"]
    return next(model["sha256"] for model in models if model["name"] == name)


def digest(server: RunningServer, file: str) -> str:
    return sha256((server.data_dir / file).read_bytes()).hexdigest()


def codes(job: dict[str, Any]) -> list[str]:
    return [note["code"] for note in job["coded_notes"]]


def picture(line: str) -> str:
    """A PNG with a line of settings, as base64."""
    texts = PngInfo()
    texts.add_text("parameters", line)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "png", pnginfo=texts)
    return base64.b64encode(file.getvalue()).decode()


def told(server: RunningServer, settings: str) -> dict[str, Any]:
    """What is said of a picture with these settings."""
    line = f"a fox\nSteps: 4, Seed: 1, Size: 64x64, {settings}"
    answer = server.http.post(f"{API}/png-info", json={"image": picture(line)})
    found: dict[str, Any] = answer.json()
    assert found["info"] == line
    return found


def test_a_job_tells_the_hashes_of_what_it_is_made_with(shelf: RunningServer) -> None:
    sketch = shelf.submit(model="sketch")["request"]
    engraved = shelf.submit(loras=[{"name": "engraving"}])["request"]

    assert sketch["model_hash"] == digest(shelf, "models/sketch.safetensors")
    assert "model_hash" not in engraved  # a folder has none
    data = (shelf.data_dir / "loras" / "engraving.safetensors").read_bytes()
    tensors = data[8 + int.from_bytes(data[:8], "little") :]
    assert engraved["lora_hashes"] == f"engraving: {sha256(tensors).hexdigest()[:12]}"


def test_a_request_with_the_hashes_of_today_is_told_nothing(shelf: RunningServer) -> None:
    made = shelf.submit(model="sketch")["request"]
    engraved = shelf.submit(loras=[{"name": "engraving"}])["request"]

    assert codes(shelf.submit(**made)) == []
    assert codes(shelf.submit(**{**made, "model_hash": made["model_hash"][:10]})) == []
    assert codes(shelf.submit(**engraved)) == []


def test_a_request_with_other_hashes_is_told_what_has_changed(shelf: RunningServer) -> None:
    made = shelf.submit(model="sketch")["request"]
    engraved = shelf.submit(loras=[{"name": "engraving"}])["request"]

    job = shelf.submit(**{**made, "model_hash": "0123456789"})
    other = shelf.submit(**{**engraved, "lora_hashes": "engraving: 0123456789ab"})

    assert job["coded_notes"][0]["code"] == "model_changed"
    assert job["notes"][0].startswith("the file of sketch is another one")
    assert job["request"] == made
    assert codes(other) == ["lora_changed"]
    assert other["request"] == engraved


@pytest.mark.parametrize("value", ["", "0123", "xyzxyzxyzxyz", "0" * 65, 5])
def test_what_is_no_hash_is_refused(shelf: RunningServer, value: object) -> None:
    answer = shelf.http.post("/txt2img", json={"prompt": "a fox", "model_hash": value})

    assert [each["pointer"] for each in answer.json()["errors"]] == ["#/model_hash"]


@pytest.mark.slow
def test_a_model_whose_file_was_replaced_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    path = checkpoint(tmp_path, "sketch", "sd1")
    with running(tmp_path, process="web") as server:
        eventually(lambda: model_hash(server, "sketch"))
        made = server.submit(model="sketch")["request"]
        line = f"Model: sketch, Model hash: {made['model_hash'][:10]}"
        assert "notes" not in told(server, line)
        path.unlink()
        checkpoint(tmp_path, "sketch", "sd1-inpaint")
    with running(tmp_path, process="web") as server:
        eventually(lambda: model_hash(server, "sketch"))

        (note,) = told(server, line)["notes"]

        assert note.startswith("the file of sketch is another one")


def test_a_picture_names_a_model_by_its_hash_whatever_it_is_called(shelf: RunningServer) -> None:
    autov2 = digest(shelf, "models/sketch.safetensors")[:10]

    found = told(shelf, f"Model hash: {autov2.upper()}, Model: deliberate_v2")

    assert found["parameters"]["Model"] == "sketch"
    assert found["notes"] == ["deliberate_v2 is sketch on this server, by its hash"]


@pytest.mark.parametrize(
    "said", ["Model: deliberate_v2", "Model hash: 0123456789", "Model: tintype"]
)
def test_a_model_that_is_not_here_or_has_no_hash_gets_no_notes(
    shelf: RunningServer, said: str
) -> None:
    assert "notes" not in told(shelf, said)


def test_an_option_may_name_a_model_by_its_hash(shelf: RunningServer) -> None:
    whole = digest(shelf, "models/sketch.safetensors")
    for title in (whole, whole[:10], f"deliberate v2.safetensors [{whole[:10]}]"):
        shelf.http.post(f"{API}/options", json={"sd_model_checkpoint": "tintype"})
        shelf.http.post(f"{API}/options", json={"sd_model_checkpoint": title})
        now = shelf.http.get(f"{API}/options").json()["sd_model_checkpoint"]
        assert now == "sketch", title


def test_an_infotext_and_a_request_name_a_model_by_its_hash(shelf: RunningServer) -> None:
    """The model is found, and refuses: it draws nothing without a picture."""
    autov2 = digest(shelf, "models/refine.safetensors")[:10]
    line = f"a fox\nSteps: 4, Seed: 1, Size: 64x64, Model hash: {autov2}, Model: gone"

    for body in ({"infotext": line}, {"override_settings": {"sd_model_checkpoint": autov2}}):
        answer = shelf.http.post(f"{API}/txt2img", json={"prompt": "a fox", **body})
        assert "refine does img2img, inpaint, not txt2img" in answer.text


@pytest.mark.parametrize("kind", ["AutoV3", "AutoV2"])
def test_a_picture_names_a_lora_by_its_hash_whatever_it_is_called(
    shelf: RunningServer, kind: str
) -> None:
    engraved = shelf.submit(loras=[{"name": "engraving"}])["request"]["lora_hashes"]
    autov2 = digest(shelf, "loras/engraving.safetensors")[:10]
    known = engraved.removeprefix("engraving: ") if kind == "AutoV3" else autov2
    hashes = f'Lora hashes: "old ink: {known}, fog: 0123456789ab"'
    line = f"a fox <lora:old ink:0.5:0.8> <lora:fog:1>\nSteps: 4, Seed: 1, Size: 64x64, {hashes}"

    found = shelf.http.post(f"{API}/png-info", json={"image": picture(line)}).json()

    prompt = "a fox <lora:engraving:0.5:0.8> <lora:fog:1>"
    assert found["parameters"]["Prompt"] == prompt
    assert found["info"] == line
