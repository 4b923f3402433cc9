"""Tokens: shown once, kept as digests, gone when they are revoked."""

import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.requests import Scope
from darkroom.storage import clients as codes
from darkroom.storage.clients import Tokens
from darkroom.storage.database import Database
from tests.security.doors import assert_refused, client, issue, new_code
from tests.serving import RunningServer, running

pytestmark = pytest.mark.slow


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(opened: Database, clock: Clock) -> Tokens:
    return Tokens(opened, clock)


def test_a_token_is_found_by_its_secret_alone(tokens: Tokens) -> None:
    token, secret = tokens.create("phone", Scope.USE)

    found = tokens.find(secret)
    assert found is not None
    assert found.id == token.id
    for wrong in ("", "dk_", secret[:-1], secret + "A", secret.lower(), "\x00", "ü" * 46, token.id):
        assert tokens.find(wrong) is None


@pytest.mark.parametrize("another_place", ["sqlite"], indirect=True)
def test_no_secret_is_in_any_file(tokens: Tokens, tmp_path: Path) -> None:
    _, secret = tokens.create("phone", Scope.USE)
    code, _ = tokens.new_code(Scope.USE, 300)
    tokens.find(secret)
    redeemed = tokens.redeem(tokens.new_code(Scope.OWN, 300)[0], "tablet")
    assert redeemed is not None

    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert codes.digest(secret).encode() in kept
    for hidden in (secret, redeemed[1], secret[3:], code, code.replace("-", "")):
        assert hidden.encode() not in kept


def test_the_last_use_is_kept_to_the_minute(tokens: Tokens, clock: Clock) -> None:
    _, secret = tokens.create("phone", Scope.USE)

    def used() -> float | None:
        (token,) = tokens.good()
        return None if token.used_at is None else token.used_at.timestamp()

    assert used() is None
    tokens.find(secret)
    assert used() == 1_000_000.0
    clock.now += 30
    tokens.find(secret)
    assert used() == 1_000_000.0
    clock.now += 31
    tokens.find(secret)
    assert used() == 1_000_061.0


def test_a_code_dies_of_age(tokens: Tokens, clock: Clock) -> None:
    code, expires_at = tokens.new_code(Scope.USE, 300)
    assert expires_at == clock.now + 300

    clock.now += 300
    assert tokens.redeem(code, "phone") is None


def test_a_code_is_read_as_people_write_it(tokens: Tokens) -> None:
    code, _ = tokens.new_code(Scope.USE, 300)
    typed = f"  {code.lower().replace('0', 'o').replace('1', 'l').replace('-', ' ')} "

    assert tokens.redeem(typed, "phone") is not None


def test_codes_are_of_characters_that_nobody_confuses() -> None:
    for _ in range(200):
        code = codes.new_code()
        assert len(code) == 9
        assert not set(code) & set("ILOU")
        assert codes.read_code(code) == code.replace("-", "")


@pytest.mark.parametrize("typed", ["", "AAAA", "AAAA-AAAAA", "AAAA-AAA!", "\x00", "ß" * 8, "٣" * 8])
def test_what_is_no_code_is_not_looked_for(tokens: Tokens, typed: str) -> None:
    assert tokens.redeem(typed, "phone") is None


# --- over HTTP -----------------------------------------------------------------------------


def test_the_owner_lists_tokens_without_their_secrets(server: RunningServer) -> None:
    issued = issue(server, "Ada's phone")
    answer = server.http.get("/tokens")

    listed = {token["id"]: token for token in answer.json()["tokens"]}
    assert listed[issued["id"]]["name"] == "Ada's phone"
    assert issued["token"] not in answer.text
    assert "digest" not in answer.text


def test_a_revoked_token_stops_at_the_next_request(server: RunningServer) -> None:
    issued = issue(server, "lost phone")
    with client(server, issued["token"]) as http:
        assert http.get("/me").status_code == 200
        assert server.http.delete(f"/tokens/{issued['id']}").status_code == 204
        assert_refused(http.get("/me"), 401, "token")
    assert_refused(server.http.delete(f"/tokens/{issued['id']}"), 404, "not-found")


def test_a_revoked_token_hears_no_more(tmp_path: Path) -> None:
    with running(tmp_path, process="web", DARKROOM_WEB__HEARTBEAT_S="0.2") as server:
        issued = issue(server, "lost phone")
        with (
            client(server, issued["token"]) as http,
            http.stream("GET", "/events") as answer,
        ):
            lines = answer.iter_lines()
            assert next(line for line in lines if line.startswith(":"))
            server.http.delete(f"/tokens/{issued['id']}")
            assert not [line for line in lines if line and not line.startswith(":")]


def test_a_device_may_give_up_its_own_token(server: RunningServer) -> None:
    issued = issue(server, "old phone")
    with client(server, issued["token"]) as http:
        gone = http.delete(f"/tokens/{issued['id']}")
        assert gone.status_code == 204
        assert "darkroom_token=;" in gone.headers["set-cookie"]
        assert_refused(http.get("/me"), 401, "token")


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "a\x1b[2Jb", "a\nb", "a\u202eb", "\x00"])
def test_a_name_must_be_printable(server: RunningServer, name: str) -> None:
    made = server.http.post("/tokens", json={"name": name})
    paired = server.http.post("/pair", json={"code": new_code(server), "name": name})

    for answer in (made, paired):
        assert_refused(answer, 422, "validation")
        assert answer.json()["errors"][0]["pointer"] == "#/name"


@pytest.mark.parametrize("body", [b"{", b"[]", b"1", b'"x"', b"\xff", b'{"name": 1}', b"null"])
def test_what_is_no_request_is_said_to_be_none(server: RunningServer, body: bytes) -> None:
    for path in ("/tokens", "/pair"):
        answer = server.http.post(path, content=body, headers={"content-type": "application/json"})
        assert_refused(answer, answer.status_code, "validation")
        assert answer.status_code in (400, 422)


def test_a_small_body_is_all_that_the_door_reads(server: RunningServer) -> None:
    body = {"code": "A" * 20_000, "name": "phone"}

    assert server.http.post("/pair", json=body).status_code == 413


# --- on the command line -------------------------------------------------------------------


def darkroom(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "darkroom", *arguments, "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_tokens_are_made_listed_and_revoked_on_the_command_line(shut_server: RunningServer) -> None:
    here = shut_server.data_dir
    made = darkroom(here, "token", "create", "script", "--scope", "own")
    secret = made.stdout.strip()

    with client(shut_server, secret) as http:
        assert http.get("/me").json()["scope"] == "own"
        listed = darkroom(here, "token", "list").stdout
        assert "script" in listed
        assert secret not in listed
        assert darkroom(here, "token", "revoke", "script").returncode == 0
        assert_refused(http.get("/me"), 401, "token")
    again = darkroom(here, "token", "revoke", "script")
    assert again.returncode == 1
    assert "there is no token 'script'" in again.stderr
