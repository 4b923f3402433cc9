"""Every command in README.md, docs/cookbook.md and docs/how-it-works.md is run, as it stands there.

That of `darkroom models pull` is run in tests/catalog/test_pull.py, which has a hub.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.programs import program
from tests.serving import RunningServer

Pixels = NDArray[np.uint8]

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


def shell(script: str, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run commands of a page, nearly all of which call curl, up to the first that fails."""
    program("curl")
    return subprocess.run(["bash", "-euo", "pipefail", "-c", script], check=True, **options)


CURLS = [block for block in blocks("sh") if "curl" in block]


def test_the_readme_has_three_curls() -> None:
    assert len(CURLS) == 3


@pytest.mark.parametrize("block", CURLS)
def test_each_curl_makes_a_picture(server: RunningServer, desk: Path, block: str) -> None:
    shell(at(server, block), cwd=desk)

    (output,) = re.findall(r"-o (\S+)", block)
    with Image.open(desk / output) as picture:
        assert picture.format == "PNG"


COOKBOOK = (ROOT / "docs/cookbook.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("sh", COOKBOOK))
def test_each_dish_of_the_cookbook_works(server: RunningServer, desk: Path, block: str) -> None:
    before = set(desk.iterdir())

    shell(at(server, block), cwd=desk)

    made = set(desk.iterdir()) - before
    assert made
    for path in made:
        if path.suffix in (".png", ".webp"):
            with Image.open(path) as picture:
                picture.load()
        else:
            assert path.stat().st_size


HOW_IT_WORKS = (ROOT / "docs/how-it-works.md").read_text()
# What each of the page's experiments says, by the names of the files that it makes.
EXPERIMENTS: dict[str, Callable[[Callable[[str], Pixels]], bool]] = {
    "seed": lambda made: (
        np.array_equal(made("seed-7"), made("seed-7-again"))
        and apart(made("seed-7"), made("seed-8")) > 0
    ),
    "steps": lambda made: decreases(
        apart(made(f"steps-{steps}"), made("steps-20")) for steps in (1, 2, 4, 8)
    ),
    "guidance": lambda made: decreases(
        apart(made("guidance-1"), made(f"guidance-{scale}")) for scale in (16, 8, 3)
    ),
    "strength": lambda made: all(
        apart(made("start"), made("strength-0.05"))
        < apart(made("start"), made(f"strength-{share}"))
        for share in ("0.1", "0.3", "1")
    ),
    "mask": lambda made: (
        np.array_equal(made("start")[:64], made("lower-half")[:64])
        and apart(made("start")[64:], made("lower-half")[64:]) > 10
    ),
}


def apart(one: Pixels, other: Pixels) -> float:
    """The mean difference of two pictures, 0 to 255."""
    return float(np.abs(np.subtract(one, other, dtype=np.float32)).mean())


def decreases(values: Iterable[float]) -> bool:
    return all(before > after for before, after in itertools.pairwise(values))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "name"), list(zip(blocks("sh", HOW_IT_WORKS)[1:], EXPERIMENTS, strict=True))
)
def test_each_experiment_shows_what_the_page_says(
    server: RunningServer, desk: Path, block: str, name: str
) -> None:
    shell(at(server, block), cwd=desk)

    def made(file: str) -> Pixels:
        with Image.open(desk / f"{file}.png") as picture:
            return np.asarray(picture.convert("RGB"))

    assert EXPERIMENTS[name](made)


@pytest.mark.slow
def test_how_it_works_explains_a_picture(server: RunningServer, desk: Path) -> None:
    (program,) = blocks("python", HOW_IT_WORKS)

    shell(at(server, blocks("sh", HOW_IT_WORKS)[0]), cwd=desk)
    environment = {**os.environ, "DARKROOM_URL": server.url}
    subprocess.run([sys.executable, "-c", program], cwd=desk, env=environment, check=True)

    (by_curl,) = json.loads((desk / "explanation.json").read_text())["images"]
    as_files = json.loads((desk / "inside" / "explanation.json").read_text())
    assert [token["text"] for token in by_curl["tokens"]][1:3] == ["a", "fox"]
    assert as_files["tokens"] == by_curl["tokens"]
    assert set(as_files["maps"]) == {"all_steps", "carried_back", "last_quarter"}


@pytest.mark.parametrize("block", blocks("python"))
def test_the_python_examples_run(server: RunningServer, desk: Path, block: str) -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-c", at(server, block)],
        cwd=desk,
        env={**os.environ, "DARKROOM_URL": server.url},
        check=True,
    )

    assert list(desk.glob("*.png"))


PAGES = (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def make(*arguments: str) -> str:
    """What make prints, called by a person: tests run below a make whose flags are inherited."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.check_output(["make", *arguments], cwd=ROOT, env=own, text=True)


@pytest.mark.parametrize(
    "command",
    [line for page in (README, CONTRIBUTING) for block in blocks("sh", page)
     for line in block.splitlines() if line.startswith("make ")],
)  # fmt: skip
def test_make_knows_what_to_do(command: str) -> None:
    assert make("--dry-run", *shlex.split(command)[1:])


def test_other_commands_for_contributors_name_a_test_that_is_there() -> None:
    lines = [line for block in blocks("sh", CONTRIBUTING) for line in block.splitlines()]
    (command,) = (line for line in lines if not line.startswith("make "))

    program, *arguments = shlex.split(command)
    assert program == ".venv/bin/pytest"
    assert (ROOT / arguments[-1]).is_file()


def test_make_help_has_a_line_for_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    lines = make("help").splitlines()

    assert set(phony.split()) == targets
    named = [re.fullmatch(r"make ([a-z-]+) +\S.*", line) for line in lines]
    assert {found[1] for found in named if found} == targets - {"programs"}
    assert len(lines) == len(targets) - 1


def test_every_target_that_contributors_are_told_of_exists() -> None:
    told = set(re.findall(r"`make ([a-z-]+)", CONTRIBUTING))

    assert told <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_folder_and_file_that_contributors_are_told_of_exists() -> None:
    told = re.findall(r"`((?:server|sdk|mobile_client|tests|docs)/[\w./]*)`", CONTRIBUTING)

    assert told
    for path in told:
        assert (ROOT / path).exists(), path


def anchors(page: str) -> set[str]:
    """What GitHub makes of the headings."""
    prose = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"""(?:\]\(|src=")(?!http)([^)"]+)""", page.read_text()):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name} links to {link}"
            if anchor:
                assert anchor in anchors(target.read_text()), f"{page.name} links to {link}"


def test_architecture_gives_a_reason_for_every_dependency() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    section = project.split("\ndependencies = [")[1].split("\n]")[0]
    names = re.findall(r'^\s+"([a-z0-9-]+)', section, re.MULTILINE)

    assert names
    for name in names:
        assert f"| {name} |" in text, f"{name} has no line in docs/architecture.md"
