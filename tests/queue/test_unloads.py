"""Models leave memory when somebody asks for it, or when nobody has used them for long."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from darkroom.engine.base import ResidentModel
from darkroom.queue.affinity import Affinity
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.queue.unloads import KEPT, ModelInUseError, Unloads
from darkroom.queue.worker_models import WorkerModels
from darkroom.requests import Scope
from darkroom.responses import JobStatus
from darkroom.storage.database import Database
from darkroom_client import APIError, Client, NotFoundError
from tests.queue.conftest import Clock, accept
from tests.queue.scripted import ScriptedEngine
from tests.security.doors import tokens_in
from tests.serving import RunningServer

Made = Callable[..., WorkerModels]


@pytest.fixture
def engine() -> ScriptedEngine:
    """With two models in memory."""
    engine = ScriptedEngine([])
    engine.models = {name: ResidentModel(1.0, 1) for name in ("a", "b")}
    return engine


@pytest.fixture
def unloads(opened: Database) -> Unloads:
    return Unloads(opened)


@pytest.fixture
def models_of(engine: ScriptedEngine, unloads: Unloads, clock: Clock) -> Made:
    def make(keep_alive_s: float = 0.0) -> WorkerModels:
        affinity = Affinity(20.0, clock)
        made = WorkerModels(engine, unloads, affinity, keep_alive_s=keep_alive_s)
        made.unload(())  # the first look
        return made

    return make


def test_every_worker_does_what_was_asked_once(
    engine: ScriptedEngine, unloads: Unloads, models_of: Made
) -> None:
    one, two = models_of(), models_of()
    unloads.ask("a")

    one.unload(())
    assert list(engine.models) == ["b"]
    engine.models["a"] = ResidentModel(1.0, 1)
    one.unload(())  # it is loaded again, and nobody asked anew
    assert "a" in engine.models
    two.unload(())
    assert list(engine.models) == ["b"]


def test_what_was_asked_of_an_earlier_process_is_not_done(
    engine: ScriptedEngine, unloads: Unloads, models_of: Made
) -> None:
    unloads.ask("a")

    models_of().unload(())

    assert list(engine.models) == ["a", "b"]


def test_a_model_in_use_stays(engine: ScriptedEngine, unloads: Unloads, models_of: Made) -> None:
    models = models_of()
    unloads.ask("a")

    models.unload({"a"})

    assert list(engine.models) == ["a", "b"]


def test_it_cannot_be_asked_while_jobs_run(store: Store, worker: Leases, unloads: Unloads) -> None:
    job_id = accept(store, model="a")
    unloads.ask("a")  # it only waits
    assert worker.claim(busy=False)

    with pytest.raises(ModelInUseError):
        unloads.ask("a")
    unloads.ask("b")

    worker.finish(job_id, JobStatus.SUCCEEDED)
    unloads.ask("a")
    assert [model for _, model in unloads.after(0)] == ["a", "b", "a"]


def test_old_requests_are_forgotten(unloads: Unloads) -> None:
    for _ in range(KEPT + 3):
        unloads.ask("a")

    assert [number for number, _ in unloads.after(0)] == list(range(4, KEPT + 4))


def test_a_model_that_no_job_uses_leaves_after_a_while(
    engine: ScriptedEngine, models_of: Made, clock: Clock
) -> None:
    models = models_of(keep_alive_s=60.0)
    clock.now += 50
    models.used("b", "ann")

    clock.now += 10
    models.unload({"a"})  # a long job
    assert list(engine.models) == ["a", "b"]
    models.unload(())
    assert list(engine.models) == ["b"]
    clock.now += 50
    models.unload(())
    assert list(engine.models) == []


# --- with the real worker ------------------------------------------------------------------


def unloaded(server: RunningServer) -> int:
    return server.log.read_text().count("model unloaded")


@pytest.mark.slow
def test_a_model_is_unloaded_over_http_by_the_sdk_and_by_the_command(
    server: RunningServer,
) -> None:
    before = server.txt2img(exact=True).json()["images"][0]["sha256"]
    command = [sys.executable, "-m", "darkroom", "unload", "tintype"]
    with Client(server.url) as client:
        for number, ask in enumerate(
            (
                lambda: server.http.post("/models/unload", json={"name": "tintype"}),
                lambda: client.unload("tintype"),
                lambda: subprocess.run([*command, "--data-dir", server.data_dir], check=True),
            ),
            start=unloaded(server) + 1,
        ):
            ask()
            server.wait_to_say("model unloaded", times=number)
            # and it comes back
            assert server.txt2img(exact=True).json()["images"][0]["sha256"] == before


def test_what_cannot_be_unloaded_is_refused(idle_server: RunningServer) -> None:
    with Client(idle_server.url) as client:
        for name in ("no-such-model", "upscalers/none"):
            with pytest.raises(NotFoundError):
                client.unload(name)
        job_id = client.txt2img("a fox").id
        client.unload("tintype")  # the job only waits
        opened = Database(idle_server.data_dir / "darkroom.db")
        worker = Leases(opened, "somebody", lease_s=30, max_attempts=3)
        while (claim := worker.claim(busy=False)) is not None and claim.job_id != job_id:
            pass
        with pytest.raises(APIError) as refused:
            client.unload("tintype")
        worker.give_back()
        opened.close()
    assert (refused.value.status, refused.value.type) == (409, "urn:darkroom:problem:in-use")


def test_only_owners_unload(idle_server: RunningServer) -> None:
    with tokens_in(idle_server.data_dir) as tokens:
        secret = tokens.create("phone", Scope.USE)[1]

    answer = idle_server.http.post(
        "/models/unload",
        json={"name": "tintype"},
        headers={"authorization": f"Bearer {secret}"},
    )

    assert answer.status_code == 403
