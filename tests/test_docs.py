"""Every command in README.md is run, as it stands there, against a real server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.serving import RunningServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(language: str, text: str = README) -> list[str]:
    return [body for name, body in BLOCK.findall(text) if name == language]


@pytest.fixture
def desk(tmp_path: Path, photo: Path, mask: Path) -> Path:
    """A folder with the files that the examples name."""
    shutil.copy(photo, tmp_path / "photo.jpg")
    shutil.copy(mask, tmp_path / "mask.png")
    return tmp_path


def at(server: RunningServer, text: str) -> str:
    """The examples' address made this server's."""
    return text.replace("http://localhost:7860", server.url).replace(
        "localhost:7860", server.url.removeprefix("http://")
    )


CURLS = [block for block in blocks("sh") if "curl" in block]


def test_the_readme_has_three_curls() -> None:
    assert len(CURLS) == 3


@pytest.mark.parametrize("block", CURLS)
def test_each_curl_makes_a_picture(server: RunningServer, desk: Path, block: str) -> None:
    subprocess.run(["bash", "-euo", "pipefail", "-c", at(server, block)], cwd=desk, check=True)

    (output,) = re.findall(r"-o (\S+)", block)
    with Image.open(desk / output) as picture:
        assert picture.format == "PNG"


COOKBOOK = (ROOT / "docs/cookbook.md").read_text()


@pytest.mark.parametrize("block", blocks("sh", COOKBOOK))
def test_each_dish_of_the_cookbook_works(server: RunningServer, desk: Path, block: str) -> None:
    before = set(desk.iterdir())

    subprocess.run(["bash", "-euo", "pipefail", "-c", at(server, block)], cwd=desk, check=True)

    made = set(desk.iterdir()) - before
    assert made
    for path in made:
        if path.suffix in (".png", ".webp"):
            with Image.open(path) as picture:
                picture.load()
        else:
            assert path.stat().st_size


@pytest.mark.parametrize("block", blocks("python"))
def test_the_python_examples_run(server: RunningServer, desk: Path, block: str) -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-c", at(server, block)],
        cwd=desk,
        env={**os.environ, "DARKROOM_URL": server.url},
        check=True,
    )

    assert list(desk.glob("*.png"))


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE))
    made = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert {"serve", "test"} <= targets <= made


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"""(?:\]\(|src=")(?!http|#)([^)#"]+)""", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_architecture_gives_a_reason_for_every_dependency() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    section = project.split("\ndependencies = [")[1].split("\n]")[0]
    names = re.findall(r'^\s+"([a-z0-9-]+)', section, re.MULTILINE)

    assert names
    for name in names:
        assert f"| {name} |" in text, f"{name} has no line in docs/architecture.md"
