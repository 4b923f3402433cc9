"""What `darkroom doctor` says of data folders that are not well, check by check."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner
from filelock import FileLock
from safetensors.torch import load_file, save_file

from darkroom.catalog.models import UnknownModelError
from darkroom.cli import main
from darkroom.config import EngineSettings, Settings
from darkroom.ops import doctor
from darkroom.ops.doctor import Finding
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.storage import database
from darkroom.storage.database import Database
from darkroom.storage.files import FolderFiles
from tests import upscalers
from tests.effort import sampled
from tests.engine import tiny
from tests.queue.conftest import accept
from tests.queue.test_store import image
from tests.serving import RunningServer

IN_DATA = {"database", "files", "locks", "workers"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(data_dir=tmp_path)
    database.migrate(settings.database_path)
    return settings


@pytest.fixture
def job(settings: Settings) -> Iterator[str]:
    """A job with one recorded picture."""
    opened = Database(settings.database_path)
    leases = Leases(opened, "w", lease_s=30, max_attempts=3)
    job_id = accept(Store(opened))
    leases.claim(busy=False)
    leases.add_image(image(job_id))
    yield job_id
    opened.close()


def findings(settings: Settings) -> dict[str, Finding]:
    """Of the checks that look into the data folder."""
    checks = (
        doctor.check_database,
        doctor.check_files,
        doctor.check_locks,
        doctor.check_workers,
    )
    return {finding.name: finding for finding in (check(settings) for check in checks)}


@pytest.mark.parametrize("make", sampled([tiny.sd1, tiny.sd1_inpaint, tiny.sdxl_refiner]))
def test_a_model_is_checked_by_drawing_with_it(
    settings: Settings, make: Callable[[Path], Path]
) -> None:
    make(settings.models_dir / "tiny")

    found = doctor.check_model(settings, "tiny")

    assert found.ok
    assert "to load the model" in found.detail


def test_a_model_that_cannot_be_loaded_or_is_not_there_says_why(settings: Settings) -> None:
    tiny.sd1(settings.models_dir / "tiny")
    weights = settings.models_dir / "tiny" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(dict(list(load_file(weights).items())[1:]), weights)
    arguments = ["models", "check", "tiny", "--data-dir", str(settings.data_dir)]

    damaged = CliRunner().invoke(main, arguments)

    assert damaged.exit_code == 1
    assert "tiny cannot draw: " in damaged.output
    assert "lacks" in damaged.output
    with pytest.raises(UnknownModelError, match="there is no model 'nothing'"):
        doctor.check_model(settings, "nothing")


def test_additions_that_cannot_be_used_are_named(settings: Settings) -> None:
    for folder in (settings.loras_dir, settings.embeddings_dir, settings.upscalers_dir):
        folder.mkdir(parents=True)
        (folder / "old.pth").touch()
    upscalers.save(settings.upscalers_dir, "fine")

    found = doctor.check_additions(settings)

    assert not found.ok
    assert found.detail.startswith("0 LoRAs, 0 embeddings, 3 upscalers; old.pth is a pickle")
    assert found.detail.count("old.pth") == 3


def test_a_folder_where_all_is_well(settings: Settings, job: str) -> None:
    FolderFiles(settings.images_dir).write(f"{job}-0", b"x")

    found = findings(settings)

    assert found.keys() == IN_DATA
    assert all(finding.ok for finding in found.values())


def test_pictures_without_files_are_counted(settings: Settings, job: str) -> None:
    assert job
    files = findings(settings)["files"]

    assert not files.ok
    assert "file is not there: 1" in files.detail


def test_files_that_belonged_to_nothing_are_mentioned(settings: Settings) -> None:
    FolderFiles(settings.orphans_dir).write("job1-0", b"x")

    assert findings(settings)["files"].detail.endswith(f"in {settings.orphans_dir}: 1")


def test_records_that_belong_to_no_job_are_found(settings: Settings) -> None:
    with sqlite3.connect(settings.database_path) as connection:
        connection.execute(
            "INSERT INTO events (job_id, type, data, created_at) VALUES ('gone', 'note', '{}', 0)"
        )
    connection.close()

    found = findings(settings)["database"]

    assert not found.ok
    assert "records of jobs that are not there: 1" in found.detail


def test_a_locked_database_is_said_to_be_locked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LOCKED_S", 0.1)
    holder = sqlite3.connect(settings.database_path)
    holder.execute("BEGIN IMMEDIATE")

    found = findings(settings)["database"]
    holder.close()

    assert not found.ok
    assert "kept it locked" in found.detail


def test_workers_are_named_and_versions_that_differ(settings: Settings) -> None:
    assert findings(settings)["workers"].detail == "none runs"
    opened = database.Database(settings.database_path)
    for name, version in (("a", "2.13.0"), ("b", "2.12.0")):
        about = {"torch": version, "device_name": "a GPU"}
        worker = Leases(opened, name, lease_s=30, max_attempts=3)
        worker.heartbeat(ready=True, device="cuda", max_in_flight=1, about=about)
    opened.close()

    found = findings(settings)["workers"]

    assert "a (a GPU, torch 2.13.0; 0 jobs)" in found.detail
    assert not found.ok
    assert "differ: 2.12.0, 2.13.0" in found.detail


def test_who_holds_the_locks_is_named(server: RunningServer) -> None:
    locks = findings(Settings(data_dir=server.data_dir))["locks"]

    assert locks.ok
    name = Settings().worker_lock_path.stem
    assert f"{name} (process {server.child('worker').pid})" in locks.detail


def test_the_port_of_the_running_server_is_no_fault(
    server: RunningServer, settings: Settings
) -> None:
    """The data folder must be that server's, else somebody else has the port."""
    url = httpx2.URL(str(server.http.base_url))
    address = {"host": url.host, "port": url.port}

    own = doctor.check_port(settings.model_copy(update={"data_dir": server.data_dir, **address}))
    other = doctor.check_port(settings.model_copy(update=address))

    assert own.ok
    assert own.detail.endswith("is held by this server")
    assert not other.ok
    assert "choose another --port" in other.advice


def test_a_process_of_another_container_is_not_looked_for_here(settings: Settings) -> None:
    """Containers count their processes from 1, each for itself."""
    path = settings.worker_lock_path

    with FileLock(path):  # as a worker there holds it
        path.write_text("4194999 pid:[1]")
        locks = findings(settings)["locks"]
        path.write_text(f"4194999 {database.processes()}")
        of_ours = findings(settings)["locks"]

    assert locks.ok
    assert f"{path.stem} (process 4194999 of another container)" in locks.detail
    assert not of_ours.ok


@pytest.mark.parametrize(("device", "is_there"), [("auto", True), ("cpu", True), ("xpu", False)])
def test_a_device_that_is_asked_for_has_to_be_there(device: str, is_there: bool) -> None:
    engine = EngineSettings.model_validate({"device": device})

    assert doctor._gpu(Settings(engine=engine)).ok is is_there
