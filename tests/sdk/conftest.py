"""Clients of the shared servers, and worse networks than this machine's."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from darkroom_client import Client
from tests.sdk.lossy import LossyProxy
from tests.sdk.scripted import Reply, ScriptedServer
from tests.serving import RunningServer


@pytest.fixture(autouse=True, scope="session")
def settings_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps the tokens of whoever runs the tests out of them."""
    folder = tmp_path_factory.mktemp("settings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DARKROOM_CREDENTIALS", str(folder / "credentials.json"))
        for name in ("DARKROOM_URL", "DARKROOM_TOKEN"):
            patch.delenv(name, raising=False)
        yield folder


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.url, timeout_s=120) as opened:
        yield opened


@pytest.fixture(scope="module")
def idle_client(idle_server: RunningServer) -> Iterator[Client]:
    """Of a server where what is queued stays queued."""
    with Client(idle_server.url) as opened:
        yield opened


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedServer]]:
    """Starts a server that gives the replies it is told to."""
    with ExitStack() as stack:

        def start(*replies: Reply) -> ScriptedServer:
            return stack.enter_context(ScriptedServer(replies))

        yield start


@pytest.fixture
def lossy() -> Iterator[Callable[..., LossyProxy]]:
    """Starts a proxy that cuts connections."""
    with ExitStack() as stack:

        def start(url: str, *allowances: int) -> LossyProxy:
            return stack.enter_context(LossyProxy(url, allowances))

        yield start
