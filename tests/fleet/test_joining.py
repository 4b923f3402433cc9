"""A box joins with a code, gets a role of its own, and loses it when it is removed."""

import json
import shutil
import stat
from pathlib import Path
from threading import Barrier, Thread

import httpx2
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from darkroom.catalog.listing import EMBEDDED
from darkroom.config import Settings
from darkroom.ops.fleet import code as codes
from darkroom.ops.fleet import handover, joining, membership
from darkroom.ops.fleet.first_box import KEY, FirstBoxError, RemovedError
from darkroom.ops.fleet.handover import NoFleetError
from darkroom.ops.fleet.joining import JoinError
from darkroom.ops.fleet.membership import Membership
from darkroom.requests import Scope
from darkroom.storage.boxes import Boxes, NotAllowedError, WrongCodeError
from darkroom.storage.clients import Tokens
from darkroom.storage.database import Database
from tests.fleet.conftest import OWNER, FirstBox, darkroom
from tests.serving import running
from tests.waiting import eventually


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings of a second box."""
    return Settings(data_dir=tmp_path_factory.mktemp("second") / "data")


@pytest.fixture(scope="module")
def code(first_box: FirstBox) -> str:
    """A code that is used already, by `joined`: its fingerprint is that of others too."""
    return first_box.new_code()


@pytest.fixture(scope="module")
def joined(first_box: FirstBox, second: Settings, code: str) -> Membership:
    """The second box, which has joined by the command."""
    url = first_box.server.url
    done = darkroom(second.data_dir, "join", url, code, "--name", "second", "--no-start")
    assert done.returncode == 0, done.stderr
    return membership.read(second)


@pytest.fixture
def fresh_code(code: str, database: Database) -> str:
    """A code that nobody has used."""
    secret, _ = Tokens(database).new_join_code(60)
    return codes.write(secret, codes.read(code)[1])


def database_of(joined: Membership) -> str:
    """The box's own URL, as psycopg takes it."""
    url = make_url(joined.handover.environment["DARKROOM_STORAGE__DATABASE_URL"])
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.mark.slow
def test_a_box_that_has_joined_works_with_a_role_of_its_own(
    first_box: FirstBox, joined: Membership, second: Settings
) -> None:
    assert stat.S_IMODE(second.membership_path.stat().st_mode) == 0o600
    assert joined.handover.environment["DARKROOM_QUEUE__LEASE_S"] == "20.0"
    assert "second  joined" in first_box.run("fleet", "list").stdout
    job = first_box.server.submit(explain=True)
    environment = {**joined.handover.environment, "DARKROOM_WORKER__NAME": "second-0"}

    with running(second.data_dir, process="worker", ready=None, **environment) as worker:

        def ended() -> str:
            assert worker.process.poll() is None, worker.log.read_text()
            found = first_box.server.http.get(f"/jobs/{job['id']}").json()["status"]
            return str(found) if found in ("succeeded", "failed") else ""

        assert eventually(ended, about=worker.log.read_text) == "succeeded"
        listed = first_box.run("fleet", "list").stdout
        assert "second-0  cpu  ready" in listed
        assert "lacks" not in listed

        # What is drained gets nothing new, until it is resumed.
        assert "gets no more jobs" in first_box.run("fleet", "drain", "second").stdout
        assert "draining" in first_box.run("fleet", "list").stdout
        job = first_box.server.submit()
        assert "gets jobs again" in first_box.run("fleet", "drain", "second", "--resume").stdout
        assert eventually(ended, about=worker.log.read_text) == "succeeded"
    assert "no worker of a box" in first_box.run("fleet", "drain", "other").stderr
    assert "permission denied" not in worker.log.read_text()


@pytest.mark.slow
def test_a_box_that_was_removed_has_no_access_any_more(
    first_box: FirstBox, fresh_code: str, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path)
    gone = joining.join(settings, first_box.server.url, fresh_code, "gone", None)
    held = psycopg.connect(database_of(gone))
    assert joining.refresh(settings, gone) == gone

    removed = first_box.run("fleet", "remove", "gone")

    assert removed.returncode == 0, removed.stderr
    with pytest.raises(psycopg.OperationalError):
        held.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(database_of(gone))
    with pytest.raises(RemovedError, match="was removed"):
        joining.refresh(settings, gone)
    # Ray's nodes, of which it is none any more, have another token.
    token = (first_box.server.data_dir / "ray.token").read_text()
    assert token != gone.handover.ray_token
    assert "no box" in first_box.run("fleet", "remove", "gone").stderr


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT digest FROM tokens",
        "SELECT name FROM devices",
        "SELECT digest FROM pairing_codes",
        "SELECT options FROM client_options",
        "SELECT url FROM webhooks",
        "DELETE FROM jobs",
        "DELETE FROM events",
        "CREATE TABLE mine (a int)",
        "CREATE ROLE another",
    ],
)
def test_a_boxs_role_may_do_what_a_worker_does_and_no_more(
    joined: Membership, statement: str
) -> None:
    with psycopg.connect(database_of(joined)) as connection:
        connection.execute("SELECT id FROM jobs")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def test_a_boxs_role_gets_nothing_by_what_runs_as_the_owner(
    first_box: FirstBox, joined: Membership
) -> None:
    """Triggers count with the owner's rights, but in no table that the role has put in the way."""
    first_box.server.submit()
    with psycopg.connect(database_of(joined), autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE totals (name text PRIMARY KEY, value bigint)")
        connection.execute("GRANT ALL ON totals TO PUBLIC")
        connection.execute("UPDATE jobs SET status = status")
        found = connection.execute("SELECT count(*) FROM pg_temp.totals").fetchone()

    assert found == (0,)


def test_the_server_keeps_no_password(first_box: FirstBox, joined: Membership) -> None:
    url = make_url(database_of(joined))
    rows = first_box.as_superuser(
        "SELECT rolpassword, shobj_description(oid, 'pg_authid') FROM pg_authid "
        f"WHERE rolname = '{url.username}'"
    )
    ((verifier, comment),) = rows

    assert str(verifier).startswith("SCRAM-SHA-256$")
    assert joined.secret not in json.dumps(rows)
    assert json.loads(str(comment))["name"] == "second"


def test_a_code_lets_one_box_join(database: Database) -> None:
    boxes = Boxes(database)
    secret, _ = Tokens(database).new_join_code(60)
    together, results = Barrier(4), []

    def try_it(name: str) -> None:
        together.wait()
        try:
            results.append(boxes.join(secret, name)[0].name)
        except WrongCodeError:
            results.append(None)

    threads = [Thread(target=try_it, args=(f"box-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (name,) = (result for result in results if result is not None)
    assert [box.name for box in boxes.all() if box.name.startswith("box-")] == [name]
    assert boxes.remove(name)


def test_a_code_expires(database: Database) -> None:
    now = [1000.0]
    secret, _ = Tokens(database, lambda: now[0]).new_join_code(600)
    now[0] += 600

    with pytest.raises(WrongCodeError):
        Boxes(database, lambda: now[0]).join(secret, "late")


def test_a_code_of_one_kind_is_none_of_the_other(database: Database) -> None:
    tokens = Tokens(database)
    secret, _ = tokens.new_join_code(60)
    assert tokens.redeem(secret, "phone") is None

    paired, _ = tokens.new_code(Scope.OWN, 60)
    with pytest.raises(WrongCodeError):
        Boxes(database).join(paired, "phone")


def test_without_the_right_to_make_roles_the_code_stays_and_the_sql_is_told(
    first_box: FirstBox, database: Database
) -> None:
    secret, _ = Tokens(database).new_join_code(60)
    first_box.postgres.execute(f"ALTER ROLE {OWNER} NOCREATEROLE")
    try:
        with pytest.raises(NotAllowedError, match="ALTER ROLE that_role CREATEROLE"):
            Boxes(database).join(secret, "early")
    finally:
        first_box.postgres.execute(f"ALTER ROLE {OWNER} CREATEROLE")

    box, _ = Boxes(database).join(secret, "early")
    assert Boxes(database).remove(box.name)


def test_a_removal_that_died_halfway_can_be_repeated(database: Database) -> None:
    boxes = Boxes(database)
    secret, _ = Tokens(database).new_join_code(60)
    box, key = boxes.join(secret, "half")
    with database.write() as session:
        session.execute(text(f'ALTER ROLE "{box.role}" NOLOGIN'))

    assert boxes.find("half", key) == box
    assert boxes.remove("half")
    assert boxes.find("half", key) is None


def test_a_box_sends_its_code_to_no_other_server(
    first_box: FirstBox, fresh_code: str, tmp_path: Path, database: Database
) -> None:
    secret, digits = codes.read(fresh_code)
    settings, url = Settings(data_dir=tmp_path), first_box.server.url

    with pytest.raises(FirstBoxError, match=r"not the one that made this code.*nothing was sent"):
        joining.join(settings, url, codes.write(secret, digits[::-1]), "later", None)

    assert not settings.membership_path.exists()
    joining.join(settings, url, fresh_code, "later", None)
    assert Boxes(database).remove("later")


def test_a_name_that_is_taken_is_refused_and_the_code_stays(
    first_box: FirstBox, joined: Membership, fresh_code: str, tmp_path: Path, database: Database
) -> None:
    settings, url = Settings(data_dir=tmp_path), first_box.server.url

    with pytest.raises(FirstBoxError, match="choose another --name"):
        joining.join(settings, url, fresh_code, joined.handover.name, None)
    with pytest.raises(FirstBoxError, match="small letters"):
        joining.join(settings, url, fresh_code, 'a"; DROP TABLE jobs', None)

    joining.join(settings, url, fresh_code, "third", None)
    assert Boxes(database).remove("third")


def test_plain_http_is_refused(first_box: FirstBox, fresh_code: str, tmp_path: Path) -> None:
    plain = first_box.server.url.replace("https", "http")

    with pytest.raises(FirstBoxError, match="joins over TLS alone"):
        joining.join(Settings(data_dir=tmp_path), plain, fresh_code, "plain", None)


def test_models_are_named_and_copied_as_they_are(
    first_box: FirstBox, joined: Membership, second: Settings
) -> None:
    own, copy = (
        folder / "models" / "another" for folder in (first_box.server.data_dir, second.data_dir)
    )
    shutil.copytree(EMBEDDED / "tintype", own)
    try:
        assert joining.lacking(second, joined) == ["another"]
        joining.copy_models(second, joined, print)
        assert joining.lacking(second, joined) == []
        for file in (path for path in own.rglob("*") if path.is_file()):
            assert (copy / file.relative_to(own)).read_bytes() == file.read_bytes()

        # What was interrupted goes on; what was damaged is fetched again.
        weights = max(copy.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
        whole = weights.read_bytes()
        arriving = weights.with_name(f".{weights.name}.joining")
        weights.unlink()
        arriving.write_bytes(whole[:-1000])
        joining.copy_models(second, joined, print)
        assert weights.read_bytes() == whole
        weights.unlink()
        arriving.write_bytes(b"damaged" + whole[7:-1000])
        with pytest.raises(JoinError, match="did not arrive as it is"):
            joining.copy_models(second, joined, print)
        assert not weights.exists()
        joining.copy_models(second, joined, print)
        assert weights.read_bytes() == whole
    finally:
        shutil.rmtree(own)


@pytest.mark.parametrize("path", ["../tls/ca.key", "tls/ca.key", "/etc/passwd", "models/../x", ""])
def test_no_file_but_those_of_models_is_sent(
    first_box: FirstBox, joined: Membership, path: str
) -> None:
    key = {KEY: f"second:{joined.secret}"}
    for place in ("/fleet/files", "/fleet/digests"):
        answer = first_box.server.http.get(place, params={"path": path}, headers=key)
        assert answer.status_code == httpx2.codes.NOT_FOUND


def test_who_is_no_box_is_told_nothing(first_box: FirstBox, joined: Membership) -> None:
    for place in ("boxes/own", "models", "files", "digests"):
        for key in ({}, {KEY: "second:wrong"}, {KEY: f"other:{joined.secret}"}, {KEY: "second"}):
            answer = first_box.server.http.get(f"/fleet/{place}", headers=key)
            assert answer.status_code == httpx2.codes.UNAUTHORIZED
            assert answer.json()["type"] == "urn:darkroom:problem:no-box"


def test_a_server_without_tls_makes_no_codes(first_box: FirstBox, tmp_path: Path) -> None:
    plain = {**first_box.settings, "DARKROOM_TLS__MODE": "off"}

    refused = darkroom(tmp_path, "fleet", "code", **plain)

    assert refused.returncode == 1
    assert "set tls.mode" in refused.stderr


def test_pictures_in_one_boxs_folder_are_no_fleets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_STORAGE__DATABASE_URL", "postgresql://me@db.lan/darkroom")
    with pytest.raises(NoFleetError, match=r"set storage.files_url"):
        handover.check(Settings())


def test_one_box_alone_is_no_fleet() -> None:
    with pytest.raises(NoFleetError, match=r"set storage.database_url"):
        handover.check(Settings())


def test_an_address_that_only_this_machine_reaches_is_not_handed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DARKROOM_STORAGE__FILES_URL", "file:///pictures")
    monkeypatch.setenv("DARKROOM_STORAGE__DATABASE_URL", "postgresql://me@localhost/darkroom")
    with pytest.raises(NoFleetError, match=r"set fleet.database_host"):
        handover.check(Settings())

    monkeypatch.setenv("DARKROOM_FLEET__DATABASE_HOST", "10.0.0.1:5433")
    url = handover.database_for(Settings(), "role", "secret")

    assert url == make_url("postgresql+psycopg://role:secret@10.0.0.1:5433/darkroom")


def test_the_fleets_address_is_one_at_which_boxes_find_this_machine() -> None:
    with pytest.raises(ValueError, match="no address at which boxes find"):
        Settings(fleet={"address": "0.0.0.0"})


@pytest.mark.usefixtures("joined")
def test_the_role_of_another_database_is_no_box_of_this(first_box: FirstBox) -> None:
    url = first_box.postgres.migrated()
    other = Database(url)
    try:
        assert Boxes(other).all() == []
    finally:
        other.close()
        first_box.postgres.drop(url)


def test_no_table_of_secrets_is_granted(joined: Membership) -> None:
    with psycopg.connect(database_of(joined)) as connection:
        rows = connection.execute(
            "SELECT table_name FROM information_schema.role_table_grants "
            "WHERE grantee = current_user"
        ).fetchall()

    assert not {"tokens", "devices", "pairing_codes", "client_options", "pulls"} & {
        name for (name,) in rows
    }


def test_errors_of_sql_are_no_lack_of_rights(database: Database) -> None:
    with pytest.raises(ProgrammingError), Boxes(database)._writing() as (session, _):
        session.execute(text("SELECT nothing FROM nowhere"))
