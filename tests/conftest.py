"""What tests share: one real server for all that only use it, pictures to send."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.serving import RunningServer, running

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with web and worker. Tests that kill or configure one start their own."""
    with running(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="session")
def idle_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose queue nobody works on: what is queued stays queued."""
    with running(tmp_path_factory.mktemp("idle"), process="web") as started:
        yield started


@pytest.fixture(scope="session")
def photo() -> Path:
    """A photograph of a cat, JPEG, 451×300."""
    return DATA / "photo.jpg"


@pytest.fixture(scope="session")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """White ellipse in the middle, PNG, the size of the photograph."""
    picture = Image.new("L", (451, 300), 0)
    ImageDraw.Draw(picture).ellipse((150, 75, 300, 225), fill=255)
    path = tmp_path_factory.mktemp("mask") / "mask.png"
    picture.save(path)
    return path
