"""The owner's models on a server elsewhere: downloaded, used and deleted with the SDK."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom.catalog.listing import EMBEDDED
from darkroom_client import (
    AsyncClient,
    Client,
    ConflictError,
    InvalidRequestError,
    JobStatus,
    NotFoundError,
    Pull,
)
from tests.catalog import hub_server
from tests.catalog.conftest import folder
from tests.catalog.hub_server import Hub
from tests.serving import RunningServer, running

pytestmark = pytest.mark.slow

FOX = "studio/fox"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    box = tmp_path_factory.mktemp("hub")
    (box / "models").mkdir()
    with hub_server.serving() as hub:
        hub.add(FOX, folder(box, "fox"))
        yield hub


@pytest.fixture(scope="module")
def house(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data = tmp_path_factory.mktemp("house")
    with running(data, process="web", HF_ENDPOINT=hub.url, HF_HOME=str(data / "hf")) as server:
        yield server


def command(server: RunningServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "darkroom_client", *arguments, "--url", server.url],
        capture_output=True,
        text=True,
        timeout=120,
        env=dict(os.environ),
        check=False,
    )


def test_a_model_is_planned_pulled_and_deleted(house: RunningServer) -> None:
    seen: list[Pull] = []
    with Client(house.url, timeout_s=120) as client:
        plan = client.plan_pull(FOX, name="reynard")
        begun = client.pull(FOX, name="reynard")
        ended = client.wait_for_pull(begun, seen.append)
        names = {model.name: model for model in client.models()}

        assert (plan.kind, plan.name, plan.family) == ("models", "reynard", "sd")
        assert plan.fits_on_disk
        assert (ended.status, ended.fraction) == (JobStatus.SUCCEEDED, 1.0)
        assert seen[-1] == ended
        assert client.pulls()[0].id == begun.id
        assert names["reynard"].deletable
        assert not names["tintype"].deletable
        with pytest.raises(ConflictError, match="is there already"):
            client.pull(FOX, name="reynard")
        client.delete_model("reynard")
        with pytest.raises(NotFoundError):
            client.delete_model("reynard")
        with pytest.raises(ConflictError, match=r"models\.default"):
            client.delete_model("tintype")
        with pytest.raises(ValueError, match="no kind"):
            client.delete_model("x", "jobs")


def test_the_same_without_blocking(house: RunningServer) -> None:
    async def refused() -> None:
        async with AsyncClient(house.url, timeout_s=120) as client:
            with pytest.raises(InvalidRequestError, match="no repository studio/nothing"):
                await client.plan_pull("studio/nothing")

    asyncio.run(refused())


def test_the_command_tells_pulls_and_deletes(house: RunningServer) -> None:
    told = command(house, "pull", FOX, "--dry-run")
    pulled = command(house, "pull", FOX)
    listed = command(house, "pulls")
    deleted = command(house, "delete-model", "fox", "--yes")

    assert "as models/fox" in told.stdout, told.stderr
    assert "free" in told.stdout
    assert pulled.returncode == 0, pulled.stderr
    assert "succeeded  models/fox  100%" in pulled.stdout
    assert "succeeded  models/fox" in listed.stdout
    assert deleted.returncode == 0, deleted.stderr
    assert not (house.data_dir / "models" / "fox").exists()


def test_a_pulled_model_draws_at_once_and_leaves_the_workers_memory(tmp_path: Path) -> None:
    with hub_server.serving() as hub:
        hub.add("studio/tint", EMBEDDED / "tintype")
        data = tmp_path / "data"
        where = {"HF_ENDPOINT": hub.url, "HF_HOME": str(data / "hf")}
        with running(data, **where) as server, Client(server.url, timeout_s=120) as client:
            plan = client.plan_pull("studio/tint")
            assert plan.fits
            assert plan.memory_bytes
            ended = client.wait_for_pull(client.pull("studio/tint"))
            assert ended.status is JobStatus.SUCCEEDED, ended.error

            job = client.txt2img(prompt="a red fox", model="tint", num_inference_steps=2)
            job.wait(120)
            memory = {model.name: model.memory_bytes for model in client.models()}
            assert memory["tint"] == plan.memory_bytes

            client.delete_model("tint")
            assert "tint" not in {model.name for model in client.models()}
            with pytest.raises(InvalidRequestError, match="there is no model"):
                client.txt2img(prompt="a red fox", model="tint")
