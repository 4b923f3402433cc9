"""The notebook in docs/ is run as it stands there, against a real server."""

from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.sdk.notebooks import kernel
from tests.serving import RunningServer

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "docs" / "example.ipynb"
PICTURE = '<img src="data:image/webp;base64,'


@pytest.fixture(scope="module")
def example() -> nbformat.NotebookNode:
    read = nbformat.read(EXAMPLE, as_version=4)
    nbformat.validate(read)
    return read


def test_it_is_kept_without_what_it_once_said(example: nbformat.NotebookNode) -> None:
    for cell in example.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_every_cell_does_what_it_says(
    example: nbformat.NotebookNode,
    server: RunningServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said: dict[str, list[dict[str, Any]]] = {}
    with kernel(tmp_path, DARKROOM_URL=server.url) as notebook:
        for cell in example.cells:
            if cell.cell_type == "code":
                said[cell.id] = notebook.run(cell.source).outputs

    for task, pictures in (("txt2img", 2), ("img2img", 1), ("inpaint", 1)):
        bar, job = (output["text/html"] for output in said[task])
        assert "<img" not in bar
        assert job.count(PICTURE) == pictures
    assert "image/png" in said["picture"][-1]
    assert "image/png" in said["mask"][-1]
    assert "image/webp" in said["timeline"][-1]
    assert said["save"][-1]["text/plain"] == "(PosixPath('fox.png'), True)"
    assert (tmp_path / "fox.png").read_bytes().startswith(b"\x89PNG")
    *printed, picture = said["events"]
    assert "100% " in "".join(output["text/plain"] for output in printed)
    assert "image/png" in picture
