"""docs/api.md tells what the server answers, of every address there is."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import apidoc
from tests.serving import RunningServer, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One of this test's own: the page tells what the first of a list has."""
    with running(tmp_path_factory.mktemp("page")) as started:
        yield started


@pytest.mark.slow
def test_the_server_answers_what_the_page_says(server: RunningServer, tmp_path: Path) -> None:
    upscaler = apidoc.furnish(tmp_path, server)
    place: dict[str, str] = {}  # of what the page calls so
    for command, told in apidoc.examples(apidoc.PAGE.read_text()):
        for shown, real in place.items():
            command = command.replace(shown, real)
        answered = apidoc.run(command, server, tmp_path)

        assert apidoc.outline(answered) == apidoc.outline(told), command
        place |= dict(zip(apidoc.names(told), apidoc.names(answered), strict=False))
    upscaler.unlink()


@pytest.mark.slow
def test_every_operation_is_on_the_page(server: RunningServer) -> None:
    page = apidoc.PAGE.read_text()
    paths = server.http.get("/openapi.json").json()["paths"]
    operations = {(method.upper(), path) for path, item in paths.items() for method in item}

    told = re.findall(r"^## `(GET|POST|PATCH|DELETE) (/[^`?]*)", page, re.MULTILINE)
    assert operations == set(told)
