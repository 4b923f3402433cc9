"""POST /edit: pictures changed as a prompt says, by models that take references."""

import base64
import io
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.engine import tiny_families
from tests.serving import RunningServer, running

FEW = {"num_inference_steps": 2, "seed": 7}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that takes one reference, and one that takes four."""
    folder = tmp_path_factory.mktemp("models")
    tiny_families.flux_kontext(folder / "kontext")
    tiny_families.flux2_klein_distilled(folder / "klein")
    return folder


@pytest.fixture(scope="module")
def studio(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that draws."""
    box = tmp_path_factory.mktemp("studio")
    shutil.copytree(models, box / "models")
    with running(box) as started:
        yield started


@pytest.fixture(scope="module")
def waiting(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose queue nobody works on."""
    box = tmp_path_factory.mktemp("waiting")
    shutil.copytree(models, box / "models")
    with running(box, process="web") as started:
        yield started


def picture(colour: str = "red", size: tuple[int, int] = (64, 64), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


RED, BLUE = picture("red"), picture("blue")


def edit(server: RunningServer, *references: str, **fields: Any) -> httpx2.Response:
    """Ask in JSON for an edit of these pictures."""
    body = {"prompt": "make it rain", "model": "klein", **FEW, "references": references, **fields}
    return server.http.post("/edit", json={name: body[name] for name in body if body[name]})


def made(answer: httpx2.Response) -> Image.Image:
    """The picture of an answer to `Accept: image/png`."""
    assert answer.status_code == 200, answer.text
    found = Image.open(io.BytesIO(answer.content))
    found.load()
    return found


def pixels(server: RunningServer, answer: httpx2.Response) -> bytes:
    """Those of the first picture of a job."""
    assert answer.status_code == 200, answer.text
    return made(server.http.get(answer.json()["images"][0]["url"])).tobytes()


def wrong(answer: httpx2.Response, status: int = 422) -> dict[str, str]:
    """Detail by pointer of a refused request."""
    assert answer.status_code == status, answer.text
    return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}


# --- what it does --------------------------------------------------------------------------


@pytest.mark.slow
def test_models_say_whether_they_edit_and_how_many_pictures(studio: RunningServer) -> None:
    listed = {model["name"]: model for model in studio.http.get("/models").json()["models"]}

    assert "edit" in listed["kontext"]["tasks"]
    assert listed["kontext"]["limits"]["max_references"] == 1
    assert listed["klein"]["limits"]["max_references"] > 1
    assert "edit" not in listed["tintype"]["tasks"]
    assert listed["tintype"]["limits"]["max_references"] == 0


def test_a_picture_is_edited(studio: RunningServer) -> None:
    answer = edit(studio, text(RED), width=320, height=256)

    job = answer.json()
    assert (job["status"], job["task"]) == ("succeeded", "edit")
    assert [name[:8] for name in job["request"]["references"]] == ["image:up"]
    assert "strength" not in job["request"]
    assert (job["images"][0]["width"], job["images"][0]["height"]) == (320, 256)
    assert pixels(studio, answer) != pixels(studio, edit(studio, text(BLUE), width=320, height=256))


@pytest.mark.slow
def test_every_reference_counts_and_so_does_their_order(studio: RunningServer) -> None:
    asked = ([RED], [RED, BLUE], [BLUE, RED])
    found = [pixels(studio, edit(studio, *map(text, references))) for references in asked]

    assert len(set(found)) == 3


@pytest.mark.slow
def test_a_form_asks_the_same(studio: RunningServer) -> None:
    fields = {"prompt": "make it rain", "model": "klein", "num_inference_steps": "2", "seed": "7"}
    parts = [("references", ("one.png", RED)), ("references", ("two.png", BLUE))]

    sent = studio.http.post("/edit", data=fields, files=parts)

    assert pixels(studio, sent) == pixels(studio, edit(studio, text(RED), text(BLUE)))


@pytest.mark.slow
def test_a_form_of_files_and_stored_pictures_is_numbered(studio: RunningServer) -> None:
    stored = edit(studio, text(RED)).json()["request"]["references"][0]
    fields = {"prompt": "make it rain", "model": "klein", "num_inference_steps": "2", "seed": "7"}

    def ask(first: str, second: str) -> httpx2.Response:
        files = {second: ("blue.png", BLUE)}
        return studio.http.post("/edit", data={**fields, first: stored}, files=files)

    found = pixels(studio, ask("references[0]", "references[1]"))
    assert found == pixels(studio, edit(studio, text(RED), text(BLUE)))
    assert pixels(studio, ask("references[1]", "references[0]")) != found
    for first, second, detail in (
        ("references", "references", "needs all its parts numbered"),
        ("references", "references[0]", "needs all its parts numbered"),
        ("references[0]", "references[0]", "has two parts numbered 0"),
        ("references[0]", "references[2]", "has parts whose numbers are not 0 to 1"),
    ):
        assert wrong(ask(first, second))["#/references"].startswith(detail)


@pytest.mark.slow
def test_an_answered_request_sent_again_makes_the_same_picture(studio: RunningServer) -> None:
    first = edit(studio, text(RED), text(BLUE), num_images=2)

    again = studio.http.post("/edit", json=first.json()["request"])

    assert [image["sha256"] for image in again.json()["images"]] == [
        image["sha256"] for image in first.json()["images"]
    ]


@pytest.mark.slow
def test_a_generated_picture_can_be_edited(studio: RunningServer) -> None:
    drawn = studio.txt2img("a red fox").json()["images"][0]["id"]

    answer = edit(studio, f"image:{drawn}")

    assert answer.json()["request"]["references"] == [f"image:{drawn}"]
    assert (answer.json()["request"]["width"], answer.json()["request"]["height"]) == (256, 256)


@pytest.mark.slow
def test_the_picture_tells_how_it_was_made(studio: RunningServer) -> None:
    found = made(studio.http.get(edit(studio, text(RED), text(BLUE)).json()["images"][0]["url"]))

    said = json.loads(found.text["darkroom"])  # type: ignore[attr-defined]
    assert (said["task"], len(said["references_sha256"])) == ("edit", 2)
    assert "references" not in said
    assert "Denoising strength" not in found.text["parameters"]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_job_with_one_reference_runs_on_a_model_that_takes_one(studio: RunningServer) -> None:
    answer = edit(studio, text(RED), model="kontext", guidance_scale=2.0)

    assert answer.json()["status"] == "succeeded", answer.text


# --- sizes ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "expected"), [((320, 512), (320, 512)), ((300, 500), (304, 496)), ((2000, 1000), None)]
)
def test_the_first_reference_gives_the_size(
    waiting: RunningServer, size: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    headers = {"prefer": "respond-async"}
    body = {"prompt": "x", "model": "klein", "references": [text(picture("red", size)), text(RED)]}

    asked = waiting.http.post("/edit", json=body, headers=headers).json()["request"]

    model = next(m for m in waiting.http.get("/models").json()["models"] if m["name"] == "klein")
    found = asked["width"], asked["height"]
    if expected is None:
        defaults = model["defaults"]["width"] * model["defaults"]["height"]
        assert found[0] * found[1] == pytest.approx(defaults, rel=0.1)
        assert found[0] / found[1] == pytest.approx(2, rel=0.1)
    else:
        assert found == expected
    assert not any(side % model["limits"]["multiple_of"] for side in found)


def test_photographs_are_stored_reduced(waiting: RunningServer) -> None:
    photo = text(picture("red", (4000, 3000), "JPEG"))
    body = {"prompt": "x", "model": "klein", "references": [photo]}

    job = waiting.http.post("/edit", json=body, headers={"prefer": "respond-async"}).json()

    stored = job["request"]["references"][0].removeprefix("image:")
    found = made(waiting.http.get(f"/images/{stored}"))
    assert found.width * found.height == pytest.approx(4 * 2**20, rel=1e-3)
    assert found.width / found.height == pytest.approx(4 / 3, rel=1e-3)


# --- what it refuses -----------------------------------------------------------------------


def test_without_a_reference_there_is_nothing_to_edit(waiting: RunningServer) -> None:
    assert wrong(edit(waiting)) == {"#/references": "is required"}
    none = waiting.http.post("/edit", json={"prompt": "x", "model": "klein", "references": []})
    assert "at least 1 item" in wrong(none)["#/references"]
    form = waiting.http.post("/edit", data={"prompt": "x"}, files={"image": RED})
    assert {"#/image", "#/references"} <= wrong(form).keys()


def test_more_pictures_than_the_model_takes_are_refused_with_its_number(
    waiting: RunningServer,
) -> None:
    assert wrong(edit(waiting, text(RED), text(BLUE), model="kontext")) == {
        "#/references": "kontext takes 1 picture at a time, not 2"
    }
    assert wrong(edit(waiting, *[text(RED)] * 5))["#/references"].startswith("klein takes 4 ")
    assert "at most 16 items" in wrong(edit(waiting, *[text(RED)] * 17))["#/references"]


def test_other_models_and_other_tasks_say_who_can(waiting: RunningServer) -> None:
    refused = wrong(edit(waiting, text(RED), model="tintype"))["#/model"]
    assert refused.startswith("tintype does txt2img, img2img, inpaint, not edit; ")
    assert "kontext" in refused
    assert "klein" in refused


@pytest.mark.parametrize("model", ["kontext", "klein"])
def test_img2img_on_a_model_that_edits_names_edit(waiting: RunningServer, model: str) -> None:
    body = {"prompt": "x", "model": model, "image": text(RED)}

    refused = wrong(waiting.http.post("/img2img", json=body))["#/model"]

    assert "not img2img" in refused
    assert "/edit" in refused


@pytest.mark.parametrize("field", ["strength", "mask_image", "image"])
def test_fields_of_other_tasks_are_no_fields_of_this_one(
    waiting: RunningServer, field: str
) -> None:
    refused = wrong(edit(waiting, text(RED), **{field: text(RED)}))

    assert refused[f"#/{field}"].startswith("there is no such field")


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        ("image:up0123456789abcdef01234567", "there is no picture 'up0123456789abcdef01234567'"),
        (text(b"not a picture"), "picture"),
        ("http://example.com/cat.png", "is an address"),
        (text(picture(size=(4, 4))), "4×4"),
        ("", "at least 1 character"),
    ],
)
def test_a_wrong_reference_is_named_by_its_number(
    waiting: RunningServer, sent: str, detail: str
) -> None:
    refused = wrong(edit(waiting, text(RED), sent))

    assert list(refused) == ["#/references/1"]
    assert detail in refused["#/references/1"]


def test_wrong_files_of_a_form_are_named_by_their_number(waiting: RunningServer) -> None:
    parts = [("references", ("one.png", RED)), ("references", ("two.png", b""))]
    empty = waiting.http.post("/edit", data={"prompt": "x", "model": "klein"}, files=parts)
    assert wrong(empty) == {"#/references/1": "is empty"}
    parts[1] = ("references", ("two.png", b"not a picture"))
    broken = waiting.http.post("/edit", data={"prompt": "x", "model": "klein"}, files=parts)
    assert list(wrong(broken)) == ["#/references/1"]


@pytest.mark.slow
def test_too_many_bytes_are_refused(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "models")
    limits = {"DARKROOM_WEB__MAX_UPLOAD_BYTES": "65536", "DARKROOM_WEB__MAX_UPLOAD_PIXELS": "16384"}
    with running(tmp_path, process="web", **limits) as server:
        large = wrong(edit(server, text(RED), text(b"x" * 70_000)), 413)
        assert large == {"#/references/1": "is larger than 65536 bytes"}
        parts = {"references": ("large.png", b"x" * 70_000)}
        form = server.http.post("/edit", data={"prompt": "x", "model": "klein"}, files=parts)
        assert wrong(form, 413) == {"#/references/0": "is larger than 65536 bytes"}
        wide = wrong(edit(server, text(picture(size=(256, 128)))))
        assert wide["#/references/0"] == "the picture is 256×128; it may have 16384 pixels"


@pytest.mark.parametrize(
    ("size", "detail"),
    [
        ((63, 100), "is 63×100; each side has to have 64 pixels"),
        ((64, 520), "is 64×520; one side may be 8 times as long as the other"),
    ],
)
def test_a_reference_that_the_model_cannot_take_is_named(
    waiting: RunningServer, size: tuple[int, int], detail: str
) -> None:
    refused = wrong(edit(waiting, text(RED), text(picture("blue", size))))

    assert refused == {"#/references/1": detail}


def test_estimates_count_the_references(waiting: RunningServer) -> None:
    """A step takes longer, the more of them the model looks at."""
    pixels = []
    for references in ([RED], [RED, BLUE], [picture(size=(2048, 2048))]):
        body = {"prompt": "x", "model": "klein", "width": 256, "height": 256}
        body |= {"references": [text(data) for data in references]}
        job = waiting.http.post("/edit", json=body, headers={"prefer": "respond-async"}).json()
        with closing(sqlite3.connect(waiting.data_dir / "darkroom.db")) as database:
            query = "SELECT pixels FROM jobs WHERE id = ?"
            pixels.append(database.execute(query, (job["id"],)).fetchone()[0])

    own = 256 * 256
    assert pixels == [own + 64 * 64, own + 2 * 64 * 64, own + 2**20]


# --- what becomes of the references --------------------------------------------------------


def test_references_of_a_waiting_job_are_not_deleted(waiting: RunningServer) -> None:
    body = {"prompt": "x", "model": "klein", "references": [text(RED), text(BLUE)]}
    job = waiting.http.post("/edit", json=body, headers={"prefer": "respond-async"}).json()
    names = [name.removeprefix("image:") for name in job["request"]["references"]]

    assert [waiting.http.delete(f"/images/{name}").status_code for name in names] == [409, 409]
    waiting.http.delete(f"/jobs/{job['id']}")
    assert [waiting.http.delete(f"/images/{name}").status_code for name in names] == [204, 204]
    again = waiting.http.post("/edit", json=job["request"])
    assert set(wrong(again)) == {"#/references/0", "#/references/1"}


def test_a_repeat_is_told_by_its_pictures(waiting: RunningServer) -> None:
    headers = {"idempotency-key": "the same edit", "prefer": "respond-async"}
    fields = {"prompt": "x", "model": "klein"}

    def ask(*pictures: bytes) -> httpx2.Response:
        parts = [("references", ("p.png", data)) for data in pictures]
        return waiting.http.post("/edit", data=fields, files=parts, headers=headers)

    first = ask(RED, BLUE)
    assert first.status_code == 202
    assert ask(RED, BLUE).json()["id"] == first.json()["id"]
    for other in (ask(BLUE, RED), ask(RED), ask(RED, RED)):
        assert (other.status_code, other.json()["title"]) == (422, "Idempotency-Key used before")
