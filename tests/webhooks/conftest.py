"""A server that may call programs on this machine."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests import upscalers
from tests.receiver import Answer, Receiver
from tests.serving import RunningServer, free_port, running
from tests.waiting import eventually

Listen = Callable[..., Receiver]

# More origins than any test needs: what is allowed is fixed when a server starts.
PORTS = 12


@pytest.fixture(scope="package")
def ports() -> list[int]:
    """On which receivers may be told."""
    return [free_port() for _ in range(PORTS)]


def allowing(ports: list[int], **settings: str) -> dict[str, str]:
    """Settings by which receivers are told, and soon told again."""
    origins = [f"http://127.0.0.1:{port}/told" for port in ports]
    origins += ["http://nowhere.invalid", *(f"https://localhost:{port}" for port in ports)]
    return {
        "DARKROOM_WEBHOOKS__ALLOW": json.dumps(origins),
        "DARKROOM_WEBHOOKS__RETRY_S": "0.05",
        "DARKROOM_WEBHOOKS__TIMEOUT_S": "3",
        "DARKROOM_WEBHOOKS__MAX_ATTEMPTS": "3",
        **settings,
    }


@pytest.fixture(scope="package")
def telling(tmp_path_factory: pytest.TempPathFactory, ports: list[int]) -> Iterator[RunningServer]:
    """A server that tells of its jobs."""
    folder = tmp_path_factory.mktemp("telling")
    upscalers.save(folder / "upscalers", "tiny-x2", scale=2)
    with running(folder, **allowing(ports)) as started:
        yield started


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
