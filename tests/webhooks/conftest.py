"""Programs that a server tells of jobs' ends."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests import upscalers
from tests.receiver import Answer, Receiver
from tests.serving import RunningServer
from tests.waiting import eventually

Listen = Callable[..., Receiver]


@pytest.fixture(scope="package")
def telling(server: RunningServer) -> Iterator[RunningServer]:
    """The shared server, with an upscaler."""
    path = upscalers.save(server.data_dir / "upscalers", "tiny-x2", scale=2)
    yield server
    path.unlink()


@pytest.fixture
def listen(ports: list[int]) -> Iterator[Listen]:
    """Starts a receiver that answers what it is told to, on the port of that number."""
    with ExitStack() as stack:

        def start(*answers: Answer, at: int = 0) -> Receiver:
            return stack.enter_context(Receiver(*answers, port=ports[at]).listening())

        yield start


def webhook(server: RunningServer, job_id: str, *states: str) -> dict[str, Any]:
    """How far a job's webhook is, once it has come to one of these states."""

    def now() -> dict[str, Any]:
        found: dict[str, Any] = server.http.get(f"/jobs/{job_id}").json()["webhook"]
        return found

    def come_to_one() -> dict[str, Any] | None:
        found = now()
        return found if found["state"] in states else None

    return eventually(come_to_one, about=now)
