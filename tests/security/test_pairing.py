"""Pairing: a code is good for one device, and cannot be guessed."""

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import httpx2
import pytest
from pydantic import ValidationError

from darkroom.api.auth.access import MAX_WRONG_CODES, Guesses
from darkroom.config import AuthSettings, Settings
from darkroom.ops import startup_notice
from darkroom.requests import Scope
from darkroom.storage import database
from tests.security.doors import assert_refused, client, new_code, tokens_in
from tests.serving import RunningServer, running


def test_a_code_makes_a_token(server: RunningServer) -> None:
    with client(server) as phone:
        answer = phone.post("/pair", json={"code": new_code(server), "name": "phone"})
        assert answer.status_code == 200
        paired = answer.json()
        assert paired["scope"] == "use"
        assert re.fullmatch(r"dk_[\w-]{43}", paired["token"])
        phone.cookies.clear()
        bearer = {"authorization": f"Bearer {paired['token']}"}
        me = phone.get("/me", headers=bearer).json()
        assert me == {
            "client": f"token:{paired['id']}",
            "client_id": f"device:{paired['device']}",
            "device": paired["device"],
            "name": paired["name"],
            "scope": "use",
        }


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(server: RunningServer) -> None:
    with client(server) as phone:
        answer = phone.post("/pair", json={"code": new_code(server), "name": "phone"})
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"darkroom_token={answer.json()['token']};")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        assert "Domain" not in cookie
        assert phone.get("/me").json()["device"] == answer.json()["device"]


def test_behind_tls_the_cookie_stays_there(server: RunningServer) -> None:
    host = httpx2.URL(server.url).netloc.decode()
    with client(server, origin=f"https://{host}") as phone:
        answer = phone.post("/pair", json={"code": new_code(server), "name": "phone"})

    assert "Secure" in answer.headers["set-cookie"].split("; ")


def test_a_code_works_once(server: RunningServer) -> None:
    code = new_code(server)
    with client(server) as phone:
        assert phone.post("/pair", json={"code": code, "name": "first"}).status_code == 200
        again = phone.post("/pair", json={"code": code, "name": "second"})

    assert_refused(again, 403, "pairing-code")


@pytest.fixture(scope="module")
def patient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """It bears being asked wrongly by many at once."""
    folder = tmp_path_factory.mktemp("patient")
    with running(folder, process="web", DARKROOM_AUTH__FAILURES_PER_MINUTE="1000") as started:
        yield started


def test_of_twenty_devices_with_one_code_one_is_paired(patient_server: RunningServer) -> None:
    code = new_code(patient_server)
    before = len(patient_server.http.get("/tokens").json()["tokens"])
    ready = Barrier(20)

    def redeem(number: int) -> int:
        with client(patient_server) as device:
            device.get("/healthz")
            ready.wait()
            answer = device.post("/pair", json={"code": code, "name": f"device {number}"})
            return answer.status_code

    with ThreadPoolExecutor(20) as pool:
        statuses = sorted(pool.map(redeem, range(20)))

    assert statuses == [200] + [403] * 19
    assert len(patient_server.http.get("/tokens").json()["tokens"]) == before + 1


@pytest.mark.slow
def test_guessing_ends_soon_even_with_the_right_code(tmp_path: Path) -> None:
    with (
        running(tmp_path, process="web", DARKROOM_AUTH__FAILURES_PER_MINUTE="5") as server,
        client(server) as stranger,
    ):
        code = new_code(server)
        for _ in range(5):
            wrong = stranger.post("/pair", json={"code": "AAAA-AAAA", "name": "x"})
            assert_refused(wrong, 403, "pairing-code")
        stopped = stranger.post("/pair", json={"code": code, "name": "x"})
        assert_refused(stopped, 429, "too-many-failures")
        assert 1 <= int(stopped.headers["retry-after"]) <= 60
        # Who has a token is not kept out by neighbours who guess.
        with tokens_in(tmp_path) as tokens:
            _, secret = tokens.create("program", Scope.USE)
        assert stranger.get("/me", headers={"authorization": f"Bearer {secret}"}).is_success
        wrong = stranger.get("/me", headers={"authorization": "Bearer dk_wrong"})
        assert_refused(wrong, 429, "too-many-failures")


def test_guessing_from_everywhere_kills_every_code(patient_server: RunningServer) -> None:
    code = new_code(patient_server)
    with client(patient_server) as stranger:
        for _ in range(MAX_WRONG_CODES + 1):
            stranger.post("/pair", json={"code": "AAAA-AAAA", "name": "x"})
        late = stranger.post("/pair", json={"code": code, "name": "x"})
        assert_refused(late, 403, "pairing-code")
        fresh = stranger.post("/pair", json={"code": new_code(patient_server), "name": "phone"})
        assert fresh.status_code == 200


def test_after_all_codes_died_counting_begins_again() -> None:
    guesses = Guesses(1000)
    died = [guesses.count_code() for _ in range(2 * (MAX_WRONG_CODES + 1))]

    assert [number for number, dies in enumerate(died, 1) if dies] == [
        MAX_WRONG_CODES + 1,
        2 * (MAX_WRONG_CODES + 1),
    ]


def test_an_owners_code_makes_an_owner(server: RunningServer) -> None:
    with client(server) as phone:
        code = new_code(server, scope="own")
        assert phone.post("/pair", json={"code": code, "name": "mine"}).json()["scope"] == "own"
        made = phone.post("/pair/codes", json={"scope": "use"})

    assert made.status_code == 201
    assert made.json()["url"].endswith(f"/#pair={made.json()['code']}")


# --- what the owner is told ----------------------------------------------------------------


def told(tmp_path: Path, *, terminal: bool, **settings: object) -> str:
    """What a start on `tmp_path` prints."""
    lines: list[str] = []
    here = Settings(data_dir=tmp_path, **settings)  # type: ignore[arg-type]
    database.migrate(here.database_path)
    with tokens_in(tmp_path) as tokens:
        startup_notice.announce(here, tokens, lines.append, terminal=terminal)
    return "\n".join(lines)


def test_the_first_code_makes_an_owner_and_later_ones_guests(tmp_path: Path) -> None:
    def pairs_as(text: str) -> Scope:
        (code,) = re.findall(r"^Code: (\S+)$", text, re.MULTILINE)
        with tokens_in(tmp_path) as tokens:
            redeemed = tokens.redeem(code, "device")
        assert redeemed is not None
        return redeemed[0].scope

    first, second = (told(tmp_path, terminal=True, host="192.168.1.5") for _ in range(2))
    assert pairs_as(first) is Scope.OWN
    assert pairs_as(second) is Scope.OWN  # made while there was no owner
    assert pairs_as(told(tmp_path, terminal=True, host="192.168.1.5")) is Scope.USE


def test_people_see_a_picture_of_the_first_code_and_programs_words(tmp_path: Path) -> None:
    terminal = told(tmp_path, terminal=True, host="192.168.1.5")
    log = told(tmp_path, terminal=False, host="192.168.1.5")
    programs = told(tmp_path, terminal=False, host="192.168.1.5", log_format="json")

    assert "█" in terminal
    assert "█" in log
    assert "█" not in programs
    for text in (terminal, log, programs):
        assert "http://192.168.1.5:7860/#pair=" in text


def test_once_there_is_an_owner_logs_hold_no_codes(tmp_path: Path) -> None:
    database.migrate(tmp_path / "darkroom.db")
    with tokens_in(tmp_path) as tokens:
        tokens.create("owner", Scope.OWN)
    text = told(tmp_path, terminal=False, host="192.168.1.5")

    assert "#pair=" not in text
    assert "darkroom pair" in text


def test_a_server_of_this_machine_alone_invites_nobody(tmp_path: Path) -> None:
    assert told(tmp_path, terminal=True, host="127.0.0.1") == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_devices_are_led_to_where_the_owner_says(tmp_path: Path, host: str) -> None:
    text = told(tmp_path, terminal=True, host=host, public_url="https://darkroom.lan")

    assert "On the local network: https://darkroom.lan\n" in text
    assert "https://darkroom.lan/#pair=" in text
    assert ":7860" not in text


@pytest.mark.parametrize(
    "wrong", ["darkroom.lan", "https://darkroom.lan/", "ftp://x", "http://a b"]
)
def test_what_is_no_base_url_is_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ValidationError):
        Settings(data_dir=tmp_path, public_url=wrong)


def test_an_open_door_is_warned_of_at_every_start(tmp_path: Path) -> None:
    for _, host in itertools.product(range(2), ("0.0.0.0", "::1")):
        text = told(tmp_path, terminal=True, auth=AuthSettings(enabled=False), host=host)
        assert text.startswith("WARNING: auth.enabled is false")
        assert "#pair=" not in text


@pytest.mark.parametrize("command", ["pair", "token pair"])
def test_darkroom_pair_prints_a_code_that_works(shut_server: RunningServer, command: str) -> None:
    options = ("--data-dir", str(shut_server.data_dir))
    result = subprocess.run(
        [sys.executable, "-m", "darkroom", *command.split(), *options],
        capture_output=True,
        text=True,
        check=True,
    )
    (code,) = re.findall(r"^Code: (\S+)$", result.stdout, re.MULTILINE)

    answer = shut_server.http.post("/pair", json={"code": code, "name": "phone"})
    shut_server.http.cookies.clear()
    assert answer.json()["scope"] == "use"
