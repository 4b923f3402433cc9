"""The server with its records on PostgreSQL, which is killed and comes back."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.serving import RunningServer, running
from tests.waiting import eventually

pytestmark = pytest.mark.slow

SETTING = "DARKROOM_STORAGE__DATABASE_URL"


@pytest.fixture(scope="module")
def url(postgres_server: postgres.Server) -> str:
    """Of an empty database, without tables."""
    postgres_server.execute("CREATE DATABASE served")
    return postgres_server.url("served").render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def server(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("served"), **{SETTING: url}) as started:
        yield started


def test_it_draws_and_lists(server: RunningServer) -> None:
    job = server.finished(server.submit(num_inference_steps=2)["id"])

    assert job["status"] == "succeeded"
    assert server.http.get(job["images"][0]["url"]).content.startswith(b"\x89PNG")
    assert job["id"] in [each["id"] for each in server.http.get("/jobs").json()["jobs"]]
    assert not (server.data_dir / "darkroom.db").exists()


def test_a_job_goes_on_when_the_database_server_comes_back(
    server: RunningServer, postgres_server: postgres.Server
) -> None:
    """It is killed while the job is drawn. Who asks meanwhile is told to come again."""
    job = server.submit(num_inference_steps=60)
    events = server.events(job["id"])
    next(event for event in events if event["event"] == "progress")

    postgres_server.kill()
    answer = server.http.post("/txt2img", json={"prompt": "a fox"})
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    postgres_server.start()

    assert server.finished(job["id"])["status"] == "succeeded"
    eventually(lambda: server.http.get("/readyz").status_code == 200)


def test_doctor_and_backup_say_where_the_records_are(server: RunningServer, url: str) -> None:
    def told(*command: str) -> str:
        whole = [sys.executable, "-m", "darkroom", *command, "--data-dir", str(server.data_dir)]
        done = subprocess.run(whole, capture_output=True, text=True, env=with_setting(url))
        return done.stdout + done.stderr

    assert "jobs" in next(line for line in told("doctor").splitlines() if "postgresql" in line)
    assert "pg_dump" in told("backup", str(Path(server.data_dir, "copy")))


def with_setting(url: str) -> dict[str, str]:
    return {**os.environ, SETTING: url}


def test_a_web_process_and_a_worker_on_two_hosts_wake_each_other(
    postgres_server: postgres.Server, tmp_path: Path
) -> None:
    """They have folders of their own, and look by themselves only once in ten minutes."""
    url = postgres_server.migrated().render_as_string(hide_password=False)
    rarely = {SETTING: url, "DARKROOM_QUEUE__POLL_S": "600"}
    with (
        running(tmp_path / "a", process="web", **rarely) as web,
        running(tmp_path / "b", process="worker", ready=None, **rarely),
    ):
        web.wait_until_ready()

        assert web.finished(web.submit()["id"])["status"] == "succeeded"


def test_web_processes_with_folders_of_their_own_have_the_same_keys(
    postgres_server: postgres.Server, tmp_path: Path
) -> None:
    """A link that one signed opens at the other, and both sign webhooks with one secret."""
    url = postgres_server.migrated().render_as_string(hide_password=False)
    files = {"DARKROOM_STORAGE__FILES_URL": (tmp_path / "files").as_uri()}
    shared = {SETTING: url, **files}
    with (
        running(tmp_path / "a", process="web", **shared) as one,
        running(tmp_path / "b", process="web", **shared) as other,
        running(tmp_path / "c", process="worker", ready=None, **shared),
    ):
        one.wait_until_ready()
        for here, there in ((one, other), (other, one)):
            wanted = {"prompt": "a fox", "response_format": "url"}
            answer = here.http.post("/v1/images/generations", json=wanted).json()
            address = answer["data"][0]["url"].removeprefix(here.url)

            assert there.http.get(address).content.startswith(b"\x89PNG")
            forged = address[:-1] + ("A" if address[-1] != "A" else "Q")
            assert there.http.get(forged).status_code == 403

    secrets = {secret_of(tmp_path / folder, shared) for folder in "aba"}
    assert len(secrets) == 1


def secret_of(folder: Path, environment: dict[str, str]) -> str:
    command = ["webhooks", "secret", "--data-dir", str(folder)]
    return subprocess.check_output(
        [sys.executable, "-m", "darkroom", *command], text=True, env={**os.environ, **environment}
    )
