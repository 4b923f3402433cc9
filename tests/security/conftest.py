"""A server that trusts nobody for where they come from, and one that asks nobody for a token."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.security.doors import client
from tests.serving import RunningServer, running


@pytest.fixture(scope="package")
def shut_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Without a worker; loopback is not trusted."""
    folder = tmp_path_factory.mktemp("shut")
    with running(folder, process="web", DARKROOM_AUTH__TRUST_LOOPBACK="false") as started:
        yield started


@pytest.fixture(scope="package")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Without a worker, and with `auth.enabled: false`."""
    folder = tmp_path_factory.mktemp("open")
    with running(
        folder,
        process="web",
        DARKROOM_AUTH__ENABLED="false",
        DARKROOM_AUTH__HOST_NAMES='["pictures.example"]',
    ) as started:
        yield started


@pytest.fixture
def stranger(shut_server: RunningServer) -> Iterator[httpx2.Client]:
    """Somebody without a token, at a server that trusts nobody."""
    with client(shut_server) as http:
        yield http
