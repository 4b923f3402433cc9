"""Two workers with data folders of their own, a web process with another, and what they share.

The deaths of `test_chaos.py` in short: without Ray, without networks of their own, without long
cuts.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests import postgres, s3
from tests.engine import tiny
from tests.fleet.boxes import Program
from tests.fleet.caller import Caller, answers, patiently
from tests.serving import free_port

JOBS = 4
STORE_AWAY_S = 2.0
SHARED = {
    "DARKROOM_QUEUE__LEASE_S": "4",
    "DARKROOM_QUEUE__MAX_ATTEMPTS": "10",  # deaths are ours, not the jobs' doing
    "DARKROOM_QUEUE__SHUTDOWN_TIMEOUT_S": "3",
    "DARKROOM_ENGINE__DEVICE": "cpu",
    "DARKROOM_DISCOVERY__ENABLED": "false",
}


class Fleet:
    """The processes, and `http` to ask web with."""

    def __init__(self, folder: Path, server: postgres.Server, store: s3.Server) -> None:
        self.postgres, self.store = server, store
        self._folder, port = folder, free_port()
        url = server.migrated().render_as_string(hide_password=False)
        self._settings = {
            **SHARED,
            "DARKROOM_STORAGE__DATABASE_URL": url,
            "DARKROOM_STORAGE__FILES_URL": store.bucket(),
            "AWS_ENDPOINT_URL": store.url,
            **s3.ENVIRONMENT,
        }
        tiny.small_by_default(tiny.BUILDERS["sd1"](folder / "second" / "models" / "of-second"))
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx2.Client(base_url=self.url, timeout=60)
        self.web = self._program("web", "--host", "127.0.0.1", "--port", str(port))
        self.first, self.second = (
            self._program("worker", name=name) for name in ("first", "second")
        )
        answers(f"{self.url}/healthz")
        patiently(lambda: self.ready() == {"first", "second"}, self.first.log)

    def ready(self) -> set[str]:
        """The workers that have loaded their model."""
        workers = self.http.get("/workers").json()["workers"]
        return {each["name"] for each in workers if each["ready"]}

    def disturbances(self) -> Iterator[Callable[[], None]]:
        """What happens, in this order, each while jobs are worked on."""
        yield self.first.crash
        yield self.postgres.crash
        yield self.web.crash
        yield lambda: self.store.stay_away(STORE_AWAY_S)

    def stop(self) -> None:
        self.http.close()
        for program in (self.first, self.second, self.web):
            program.stop()

    def _program(self, *command: str, name: str = "web") -> Program:
        data_dir = self._folder / name
        where = ("--data-dir", str(data_dir))
        return Program(
            data_dir / "log", *command, *where, **self._settings, DARKROOM_WORKER__NAME=name
        )


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with ExitStack() as stack:
        server = stack.enter_context(postgres.running())
        store = stack.enter_context(s3.running())
        started = Fleet(tmp_path_factory.mktemp("fleet"), server, store)
        stack.callback(started.stop)
        yield started


@pytest.mark.slow
def test_a_model_that_only_one_has_is_listed_and_drawn_there(fleet: Fleet) -> None:
    listed = fleet.http.get("/models").json()["models"]
    workers = {each["name"]: each["workers"] for each in listed}
    assert workers == {"tintype": ["first", "second"], "of-second": ["second"]}

    for _ in range(3):
        body = {"prompt": "a fox", "model": "of-second", "num_inference_steps": 2}
        job = fleet.http.post("/txt2img", json=body).json()
        assert (job["status"], job["worker"]) == ("succeeded", "second")
        picture = fleet.http.get(job["images"][0]["url"])
        assert picture.content.startswith(b"\x89PNG")


def test_every_job_gets_its_picture_whatever_dies(fleet: Fleet, photo: Path) -> None:
    caller = Caller(fleet.url, photo, JOBS)

    caller.draw(fleet.disturbances())

    assert caller.refusals <= {503}
