"""`darkroom storage move`: a server's records and files in other places, and back."""

import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, select, text
from sqlalchemy.orm import Session

from darkroom.config import Settings, StorageSettings
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.requests import Scope
from darkroom.responses import JobStatus
from darkroom.storage import database, move
from darkroom.storage.clients import Preferences, Tokens
from darkroom.storage.database import Database, place_of
from darkroom.storage.files import FolderFiles, files_of
from darkroom.storage.move import Moved, MoveError
from darkroom.storage.tables import EventRow, JobRow
from tests import postgres, s3
from tests.queue.conftest import accept, upload_of
from tests.queue.test_store import image
from tests.test_cli import darkroom

UPLOAD = "up0123456789abcdef01234567"


@pytest.fixture
def source(tmp_path: Path, empty_database: Path) -> Settings:
    """What a server on one machine has stored, after it was stopped."""
    settings = Settings(data_dir=tmp_path / "data")
    settings.data_dir.mkdir()
    shutil.copy(empty_database, settings.database_path)
    opened, files = Database(settings.database_path), FolderFiles(settings.images_dir)
    store = Store(opened)
    worker = Leases(opened, "w", lease_s=30, max_attempts=3)
    for number in range(5):
        files.write(UPLOAD[:-1] + str(number), b"source")
        made = upload_of(UPLOAD[:-1] + str(number))
        job = accept(store, f"device:{number}", uploads=(made,), prompt=f"a café, {number}")
        worker.claim(busy=False)
        if number < 3:
            data = f"picture {number}".encode()
            files.write(f"{job}-0", data)
            row = image(job)
            row.sha256 = sha256(data).hexdigest()
            worker.add_image(row)
            worker.finish(job, JobStatus.SUCCEEDED)
    with opened.write() as session:  # numbers that were given away, and are not given again
        last = session.scalars(select(EventRow).order_by(EventRow.id.desc())).first()
        session.delete(last)
    Tokens(opened).create("phone", Scope.USE)
    Preferences(opened).change("device:1", {"CLIP_stop_at_last_layers": 2})
    opened.close()
    return settings


@pytest.fixture
def elsewhere(
    source: Settings, postgres_server: postgres.Server, s3_server: s3.Server
) -> Iterator[Settings]:
    """PostgreSQL and S3, both empty."""
    url = postgres_server.migrated()
    yield of(source, url.render_as_string(hide_password=False), s3_server)
    postgres_server.drop(url)


def of(settings: Settings, url: str, server: s3.Server) -> Settings:
    storage = StorageSettings.model_validate(
        {
            "database_url": url,
            "files_url": f"{server.bucket()}/moved",
            "files_options": server.options,
        }
    )
    return settings.model_copy(update={"storage": storage})


def everything(settings: Settings) -> tuple[dict[str, move.Digest], dict[str, bytes], list[int]]:
    """All records, all files, and the numbers that come next."""
    opened, files = Database(place_of(settings)), files_of(settings)
    with opened.read() as session:
        records = {table.name: move._digest(session, table) for table in move._tables()}
        counters = [move._counter(session, table) for table in move._tables()]
    opened.close()
    return records, {name: files.read(name) for name in files.names() if name != "clock"}, counters


@pytest.mark.slow
def test_everything_comes_over_and_back(
    source: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    before = everything(source)

    assert move.move(source, elsewhere) == Moved(jobs=5, files=8, missing=0)
    assert everything(elsewhere) == before

    home = source.model_copy(update={"data_dir": tmp_path / "back"})
    away = elsewhere.model_copy(update={"data_dir": tmp_path / "back"})
    assert move.move(away, home) == Moved(jobs=5, files=8, missing=0)
    assert everything(home) == before
    assert everything(source) == before


@pytest.mark.slow
def test_the_queue_goes_on_in_the_new_place(source: Settings, elsewhere: Settings) -> None:
    move.move(source, elsewhere)
    opened = Database(place_of(elsewhere))
    with opened.read() as session:
        last = move._counter(session, EventRow.__table__)  # type: ignore[arg-type]
        jobs = session.scalars(select(JobRow.id)).all()

    job = accept(Store(opened))
    with opened.read() as session:
        first = session.scalars(select(EventRow.id).where(EventRow.job_id == job)).first()
    assert job not in jobs
    assert first is not None
    assert first > last
    assert Leases(opened, "w", lease_s=30, max_attempts=3).recover_own() == 2
    opened.close()


class KilledError(BaseException):
    """The process was killed."""


@pytest.mark.parametrize("after", [0, 3, 7, 11])
def test_a_move_that_is_killed_goes_on(
    source: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    before = everything(source)
    target = to_folder(source, tmp_path)
    left = after

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError
            return real(*arguments)

        return called

    monkeypatch.setattr(move, "_is_same", dying(move._is_same))
    monkeypatch.setattr(move, "_set_counter", dying(move._set_counter))
    with pytest.raises(KilledError):
        move.move(source, target)
    monkeypatch.undo()

    assert move.move(source, target).jobs == 5
    assert everything(target) == before
    assert move.move(source, target).jobs == 5  # and again


def to_folder(source: Settings, tmp_path: Path) -> Settings:
    """Another file of SQLite's, and a folder behind a URL."""
    storage = StorageSettings.model_validate({"files_url": f"file://{tmp_path}/there"})
    there = source.model_copy(update={"data_dir": tmp_path / "other", "storage": storage})
    there.data_dir.mkdir()
    return there


def test_a_file_that_was_half_copied_is_copied_again(source: Settings, tmp_path: Path) -> None:
    target = to_folder(source, tmp_path)
    files = files_of(target)
    files.write(UPLOAD[:-1] + "0", b"sou")

    move.move(source, target)

    assert files.read(UPLOAD[:-1] + "0") == b"source"


def test_a_missing_file_is_told_and_its_record_comes_over(source: Settings, tmp_path: Path) -> None:
    FolderFiles(source.images_dir).delete(UPLOAD[:-1] + "0")

    assert move.move(source, to_folder(source, tmp_path)) == Moved(jobs=5, files=7, missing=1)


def test_places_that_others_use_are_refused(source: Settings, tmp_path: Path) -> None:
    target = to_folder(source, tmp_path)
    files_of(target).write("others-0", b"x")
    with pytest.raises(MoveError, match="1 files of others"):
        move.move(source, target)
    files_of(target).delete("others-0")

    database.migrate(place_of(target))
    opened = Database(place_of(target))
    accept(Store(opened))
    opened.close()
    with pytest.raises(MoveError, match="has records"):
        move.move(source, target)


@pytest.mark.slow
def test_no_server_ends_the_transaction_while_the_others_rows_are_compared(
    source: Settings, elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million rows that takes minutes, and a silent session has seconds."""
    digest, limits = move._digest, []

    def noted(session: Session, table: Table) -> move.Digest:
        if session.get_bind().dialect.name == "postgresql":
            limits.append(session.scalar(text("SHOW idle_in_transaction_session_timeout")))
        return digest(session, table)

    monkeypatch.setattr(move, "_digest", noted)
    move.move(source, elsewhere)

    assert set(limits) == {"0"}


def test_a_server_that_runs_is_not_moved(source: Settings, tmp_path: Path) -> None:
    target = to_folder(source, tmp_path)
    with (
        database.exclusively(source.data_dir / "web.lock"),
        pytest.raises(MoveError, match="stop it first"),
    ):
        move.move(source, target)

    opened = Database(place_of(source))
    worker = Leases(opened, "box-b-0", lease_s=30, max_attempts=3)
    worker.heartbeat(ready=True, device="cpu", max_in_flight=4)
    opened.close()
    with pytest.raises(MoveError, match="box-b-0"):
        move.move(source, target)


@pytest.mark.slow
def test_the_command_says_which_settings_to_write(source: Settings, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()

    result = darkroom(
        *("storage", "move", "--files", f"file://{tmp_path}/there"),
        *("--data-dir", str(source.data_dir)),
    )

    assert result.returncode == 0, result.stderr
    assert "5 jobs and 8 files" in result.stdout
    assert f"files_url: file://{tmp_path}/there" in result.stdout
    assert darkroom("storage", "move", "--data-dir", str(source.data_dir)).returncode == 1
