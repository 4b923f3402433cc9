"""Other people's clients, each with a token: nobody is trusted for where they come from."""

from collections.abc import Iterator

import pytest

from darkroom.requests import Scope
from tests.security.doors import tokens_in
from tests.serving import RunningServer, running


@pytest.fixture(scope="package")
def locked_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """With a worker; loopback is not trusted, so that every request needs its token."""
    folder = tmp_path_factory.mktemp("locked")
    with running(folder, DARKROOM_AUTH__TRUST_LOOPBACK="false") as started:
        yield started


@pytest.fixture
def token(locked_server: RunningServer) -> str:
    """Of a device that was let in just now."""
    with tokens_in(locked_server.data_dir) as tokens:
        return tokens.create("somebody's program", Scope.USE)[1]
