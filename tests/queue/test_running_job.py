"""What the engine is given of a claimed job, and what its pictures say of it."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from darkroom.engine.base import ImageReady
from darkroom.images import codec
from darkroom.queue.running_job import Running
from darkroom.requests import OutputFormat, Task
from darkroom.storage.files import Files, FolderFiles
from darkroom.storage.records import Claim
from tests.engine.conftest import request

RED = Image.new("RGB", (24, 16), "red")
BLUE = Image.new("L", (8, 40), 99)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return FolderFiles(tmp_path / "images")


def running(files: Files, *pictures: Image.Image) -> Running:
    """An edit of these pictures, which are stored."""
    for number, picture in enumerate(pictures):
        files.write(f"up{number}", codec.encode(picture, OutputFormat.PNG))
    references = [f"image:up{number}" for number in range(len(pictures))]
    asked = request(Task.EDIT, references=references)
    return Running(Claim("job", "somebody", asked, asked.workload, 1))


def test_references_come_in_their_order_as_rgb(files: Files) -> None:
    job = running(files, RED, BLUE).load(files)

    assert job.image is None
    assert [(picture.mode, picture.size) for picture in job.references] == [
        ("RGB", (24, 16)),
        ("RGB", (8, 40)),
    ]
    assert job.references[0].getpixel((0, 0)) == (255, 0, 0)


def test_photographs_are_reduced_to_fit_in_memory(files: Files) -> None:
    photo = Image.new("RGB", (6000, 2000), "red")

    found = running(files, photo, RED).load(files).references

    assert found[0].width * found[0].height == pytest.approx(codec.REFERENCE_PIXELS, rel=1e-3)
    assert found[0].width / found[0].height == pytest.approx(3, rel=1e-2)
    assert found[1].size == RED.size


def test_a_reference_that_is_gone_is_an_error(files: Files) -> None:
    claimed = running(files, RED, BLUE)
    files.delete("up1")

    with pytest.raises(OSError, match="up1"):
        claimed.load(files)


def test_pictures_name_references_by_content(files: Files) -> None:
    claimed = running(files, RED, BLUE)
    claimed.load(files)

    row, explanation = claimed.store(ImageReady("job", 0, 7, RED), files.write, png_level=6)

    assert explanation is None

    with Image.open(io.BytesIO(files.read(row.id))) as made:
        native = json.loads(made.text["darkroom"])  # type: ignore[attr-defined]
    assert "references" not in native
    assert len(native["references_sha256"]) == 2
    assert len(set(native["references_sha256"])) == 2
    assert "up0" not in json.dumps(native)
    assert native["task"] == "edit"
