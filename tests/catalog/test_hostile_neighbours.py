"""What lies beside weights may be anything: it takes little time and memory, and breaks nothing."""

import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from darkroom.catalog import sidecars
from darkroom.catalog.models import ModelCatalog
from tests.catalog.conftest import checkpoint, folder

HUGE = 2**30
NESTED = "[" * 100_000


@contextmanager
def at_most(bytes_more: int, seconds: float) -> Iterator[None]:
    """Fails if the block takes more memory, or more processor time."""
    before, then = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert taken <= bytes_more
    assert time.process_time() - then <= seconds


def sparse(path: Path) -> None:
    """A gigabyte that takes no room."""
    path.write_bytes(b"{")
    os.truncate(path, HUGE)


BESIDE: dict[str, Callable[[Path], None]] = {
    "a gigabyte": sparse,
    "deep": lambda path: path.write_text(NESTED) and None,
    "deep in an object": lambda path: path.write_text('{"a": ' + NESTED) and None,
    "numbers that are none": lambda path: path.write_text('{"x": NaN, "title": Infinity}') and None,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": lambda path: os.mkfifo(path),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link out": lambda path: path.symlink_to("/etc/passwd"),
    "no text": lambda path: path.write_bytes(bytes(range(256))) and None,
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("ending", [".json", ".civitai.info"])
@pytest.mark.parametrize("what", BESIDE)
def test_another_programs_file_never_costs_a_model(
    box: Path, catalog: ModelCatalog, what: str, ending: str
) -> None:
    path = checkpoint(box)
    BESIDE[what](path.with_name(f"model{ending}"))

    with at_most(64 * 2**20, 2):
        entry = catalog.find("model")

    assert entry.info.title == ""
    assert json.loads(entry.info.model_dump_json(), parse_constant=pytest.fail)


@pytest.mark.parametrize("what", ["a gigabyte", "deep", "endless", "a pipe"])
def test_a_models_own_json_is_bounded_too(box: Path, catalog: ModelCatalog, what: str) -> None:
    path = folder(box)
    for name in ("model_index.json", "README.md"):
        (path / name).unlink(missing_ok=True)
        BESIDE[what](path / name)

    with at_most(96 * 2**20, 2):
        broken = catalog.broken()

    assert [each.name for each in broken] == ["model"]


def test_weights_that_are_a_pipe_do_not_stop_the_list(box: Path, catalog: ModelCatalog) -> None:
    os.mkfifo(box / "models" / "pipe.safetensors")
    os.mkfifo(box / "models" / "pipe2.gguf")

    assert [each.name for each in catalog.broken()] == ["pipe", "pipe2"]


def test_notes_with_numbers_that_are_none_are_refused(box: Path, catalog: ModelCatalog) -> None:
    path = checkpoint(box)
    rows = "[[NaN, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]"
    for notes in (
        f'{{"latent_rgb": {rows}}}',
        '{"defaults": {"guidance_scale": NaN}}',
        '{"defaults": {"width": Infinity}}',
    ):
        path.with_name("model.darkroom.json").write_text(notes)
        (broken,) = catalog.broken()
        assert "its notes model.darkroom.json are not valid" in broken.reason


@pytest.mark.parametrize("what", ["a gigabyte", "endless", "a pipe", "a folder"])
def test_a_picture_is_read_within_bounds(tmp_path: Path, what: str) -> None:
    path = tmp_path / "model.png"
    BESIDE[what](path)

    with at_most(96 * 2**20, 2), pytest.raises(OSError):
        sidecars.picture_of(path)
