"""The database cannot be written for a while: clear errors, service afterwards, nothing lost."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serving import RunningServer, running

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running(tmp_path, DARKROOM_QUEUE__DATABASE_TIMEOUT_S="0.5") as started:
        yield started


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Another process's transaction holds the only lock for writing."""
    other = sqlite3.connect(data_dir / "darkroom.db", isolation_level=None, timeout=60)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


def test_a_locked_database_is_a_clear_error_and_then_forgotten(server: RunningServer) -> None:
    with locked(server.data_dir):
        refused = server.txt2img()

        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:darkroom:problem:database"
        assert "locked" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) > 0
        assert server.http.get("/jobs").json()["jobs"] == []

    assert server.txt2img().json()["status"] == "succeeded"


def test_a_job_in_flight_waits_for_the_lock(server: RunningServer) -> None:
    worker = server.child("worker").pid
    job = server.submit(num_inference_steps=60)
    next(event for event in server.events(job["id"]) if event["event"] == "progress")

    with locked(server.data_dir):
        server.wait_to_say("progress cannot be written")

    assert server.finished(job["id"])["status"] == "succeeded"
    assert server.child("worker").pid == worker
