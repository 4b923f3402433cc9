"""Schemas of earlier versions come up to date with everything in them."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select, text
from structlog.testing import capture_logs

from darkroom.config import Settings
from darkroom.ops.doctor import check_database
from darkroom.queue.store import Store
from darkroom.requests import Scope
from darkroom.responses import EventType, JobStatus
from darkroom.storage import backup, database
from darkroom.storage.backup import COPIES_KEPT, BackupError, migration_copies
from darkroom.storage.clients import Preferences, Tokens
from darkroom.storage.database import Database
from darkroom.storage.tables import ClientRow, JobRow, PairingCodeRow, SpeedRow, Table, UploadRow

STORED = {  # as version 0001 wrote a request down
    "task": "txt2img",
    "model": "tintype",
    "prompt": "a red fox",
    "negative_prompt": "",
    "width": 128,
    "height": 64,
    "num_inference_steps": 6,
    "guidance_scale": 3.0,
    "num_images": 1,
    "seed": 7,
    "scheduler": "ddim",
    "loras": [],
    "clip_skip": 0,
    "output_format": "png",
    "exact": False,
    "image": None,
    "strength": None,
    "mask_image": None,
}


def bring(path: Path, revision: str) -> None:
    """Take the database at `path` up or down to a revision."""
    engine = database.connect(path)
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        up = MigrationContext.configure(connection).get_current_revision() is None
        (command.upgrade if up else command.downgrade)(config, revision)
    engine.dispose()


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A database as version 0001 left it: a job with its picture and its story, a speed."""
    path = tmp_path / "darkroom.db"
    bring(path, "0001")
    engine = database.connect(path)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO jobs VALUES (1, 'old', :client, 'txt2img', 'succeeded', :request,"
                " 6, 6, 1, 0, NULL, NULL, NULL, 'f', NULL, 1, 2, 3)"
            ),
            {"client": "address:127.0.0.1", "request": json.dumps(STORED)},
        )
        for statement in (
            "INSERT INTO images VALUES ('old-0', 'old', 0, 7, 8, 8, 'image/png', 3, 'aa', 3)",
            "INSERT INTO events VALUES (1, 'old', 'queued', '{}', 1)",
            "INSERT INTO events VALUES (2, 'old', 'succeeded', '{}', 3)",
            "INSERT INTO speeds VALUES ('tintype', 16384, 0.5, 1.0)",
            "INSERT INTO workers VALUES ('box', 1, 'cpu', 3)",
        ):
            connection.execute(text(statement))
    engine.dispose()
    return path


def test_the_newest_schema_is_the_last_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))

    assert ScriptDirectory.from_config(config).get_current_head() == database.newest_schema()


def test_the_migrations_make_exactly_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "darkroom.db"
    database.migrate(path)

    engine = database.connect(path)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
    engine.dispose()


def test_what_the_first_version_stored_is_still_there(first: Path) -> None:
    database.migrate(first)

    opened = Database(first)
    store = Store(opened)
    job = store.job("old", "local")
    assert job is not None
    assert job.status is JobStatus.SUCCEEDED
    assert job.notes == ()
    unused = {"task", "image", "strength", "mask_image"}
    assert job.request == {name: STORED[name] for name in STORED.keys() - unused}
    with opened.read() as session:
        row = session.scalars(select(JobRow)).one()
        assert (row.model, row.pixels, row.images) == ("tintype", 128 * 64, 1)
    assert job.client == "this machine"
    assert [image.id for image in job.images] == ["old-0"]
    kinds = [event.type for event in store.events_after(0, "old")]
    assert kinds == [EventType.QUEUED, EventType.SUCCEEDED]
    with opened.read() as session:
        speed = session.get(SpeedRow, ("tintype", 16384, 1))
        assert speed is not None
        assert speed.step_seconds == 0.5
    opened.close()


def test_the_way_back_keeps_what_the_first_version_knew(first: Path) -> None:
    database.migrate(first)
    bring(first, "0001")

    engine = database.connect(first)
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT id FROM jobs")) == "old"
        assert (
            STORED.items()
            <= json.loads(connection.scalar(text("SELECT request FROM jobs"))).items()
        )
        assert connection.scalar(text("SELECT count(*) FROM events")) == 2
        assert connection.scalar(text("SELECT step_seconds FROM speeds")) == 0.5
    engine.dispose()


@pytest.fixture
def paired(tmp_path: Path) -> Path:
    """A database of schema 0008: three tokens of two names, one revoked, and what they made."""
    path = tmp_path / "paired.db"
    bring(path, "0008")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, NULL, ?)",
            [
                ("aa", "iPhone", "own", "digest of aa", 1, 5),
                ("bb", "iPhone", "use", "digest of bb", 2, None),
                ("cc", "tablet", "use", "digest of cc", 3, None),
            ],
        )
        for number, (client, name) in enumerate(
            [("token:aa", "iPhone"), ("token:bb", "iPhone"), ("local", "this machine")]
        ):
            connection.execute(
                "INSERT INTO jobs (id, client, client_name, task, status, request, step, steps, "
                "attempts, cancel_requested, fingerprint, idempotency_key, created_at) "
                "VALUES (?, ?, ?, 'txt2img', 'succeeded', '{}', 0, 0, 1, 0, 'f', 'monday', ?)",
                (f"job{number}", client, name, number),
            )
        connection.execute("INSERT INTO uploads VALUES ('up1', 'token:bb', 'x', 8, 8, 3, 1)")
        connection.execute("INSERT INTO clients VALUES ('token:bb', 7)")
        connection.execute("INSERT INTO client_options VALUES ('token:bb', '{\"a\": 1}')")
        connection.execute("INSERT INTO pairing_codes VALUES ('digest of a code', 'own', 1, 9e9)")
    return path


def test_a_device_is_made_of_each_token_with_all_that_it_had(paired: Path) -> None:
    database.migrate(paired)

    opened = Database(paired)
    devices = {device.id: device for device in Tokens(opened).devices()}
    # Who has a valid token is known by its name.
    assert {each.id: each.name for each in devices.values()} == {
        "aa": "iPhone 2",
        "bb": "iPhone",
        "cc": "tablet",
    }
    tokens = {each.id: [token.id for token in each.tokens] for each in devices.values()}
    assert tokens == {"aa": [], "bb": ["bb"], "cc": ["cc"]}
    assert devices["aa"].scope is Scope.OWN
    assert {each.id: each.jobs for each in devices.values()} == {"aa": 1, "bb": 1, "cc": 0}
    with opened.read() as session:
        jobs = session.execute(select(JobRow.id, JobRow.client, JobRow.client_name)).all()
        assert [tuple(job) for job in jobs] == [
            ("job0", "device:aa", "iPhone 2"),
            ("job1", "device:bb", "iPhone"),
            ("job2", "local", "this machine"),
        ]
        assert session.scalars(select(UploadRow.client)).all() == ["device:bb"]
        assert session.scalars(select(ClientRow.client)).all() == ["device:bb"]
        codes = session.execute(select(PairingCodeRow.scope, PairingCodeRow.device_id)).all()
        assert [tuple(code) for code in codes] == [("own", None)]
    assert Preferences(opened).of("device:bb") == {"a": 1}
    opened.close()


def test_the_way_back_gives_what_a_device_has_to_its_first_token(paired: Path) -> None:
    database.migrate(paired)
    opened = Database(paired)
    Tokens(opened).create("", Scope.USE, "bb")
    opened.close()
    bring(paired, "0008")

    with closing(sqlite3.connect(paired)) as connection:
        rows = connection.execute("SELECT id, client FROM jobs").fetchall()
        assert rows == [("job0", "token:aa"), ("job1", "token:bb"), ("job2", "local")]
        names = connection.execute("SELECT name FROM tokens ORDER BY created_at").fetchall()
        assert [name for (name,) in names] == ["iPhone 2", "iPhone", "tablet", "iPhone"]
        assert connection.execute("SELECT count(*) FROM pairing_codes").fetchone() == (1,)


def jobs_in(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [job_id for (job_id,) in connection.execute("SELECT id FROM jobs")]


def test_the_database_is_copied_before_it_is_migrated(first: Path) -> None:
    with capture_logs() as said:
        database.migrate(first)

    ((copy, schema),) = migration_copies(first)
    assert schema == "0001"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert jobs_in(copy) == ["old"]
    assert said == [
        {
            "event": "database copied before migration",
            "log_level": "info",
            "schema": "0001",
            "copy": str(copy),
        }
    ]

    first.unlink()
    copy.rename(first)  # the copy takes its place, and is migrated again
    database.migrate(first)
    assert jobs_in(first) == ["old"]


def test_nothing_is_copied_where_there_is_nothing_to_migrate(tmp_path: Path) -> None:
    path = tmp_path / "darkroom.db"
    database.migrate(path)
    database.migrate(path)

    assert migration_copies(path) == []


def test_the_last_copies_are_kept(first: Path) -> None:
    earlier = [
        first.with_name(f"darkroom-000{number}-2026010{number}-120000.db") for number in range(1, 5)
    ]
    for path in earlier:
        path.touch()
    database.migrate(first)

    kept = [copy for copy, _ in migration_copies(first)]
    assert kept[:-1] == earlier[-COPIES_KEPT + 1 :]


def test_a_copy_that_was_just_made_is_kept_whatever_the_clock_says(
    first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 5):
        first.with_name(f"darkroom-000{number}-2026010{number}-120000.db").touch()
    monkeypatch.setattr(backup.time, "strftime", lambda *_: "19700101-000000")

    database.migrate(first)

    kept = [copy.name for copy, _ in migration_copies(first)]
    assert len(kept) == COPIES_KEPT
    assert kept[0] == "darkroom-0001-19700101-000000.db"


def test_without_space_for_a_copy_nothing_is_changed(
    first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    with pytest.raises(BackupError, match=r"bytes of space are needed, and 1000 are free"):
        database.migrate(first)

    assert migration_copies(first) == []
    with closing(sqlite3.connect(first)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)


def test_a_newer_database_is_refused_with_what_to_do(first: Path) -> None:
    database.migrate(first)
    ((copy, _),) = migration_copies(first)
    with closing(sqlite3.connect(first)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(database.NewerDatabaseError) as refused:
        database.migrate(first)

    assert "has schema 9999" in refused.value.detail
    assert "upgrade the program" in refused.value.advice
    assert str(copy) in refused.value.advice
    assert jobs_in(first) == ["old"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve", "web", "worker"])
def test_no_process_starts_on_a_newer_database(first: Path, command: str) -> None:
    database.migrate(first)
    with closing(sqlite3.connect(first)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    ended = subprocess.run(
        [sys.executable, "-m", "darkroom", command, "--data-dir", first.parent],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "has schema 9999" in line
    assert "upgrade the program" in line


def test_doctor_tells_of_a_newer_database(first: Path) -> None:
    database.migrate(first)
    with closing(sqlite3.connect(first)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    finding = check_database(Settings(data_dir=first.parent))

    assert not finding.ok
    assert "has schema 9999" in finding.detail
    assert "upgrade the program" in finding.advice
