"""What a device made is the device's, whichever token it comes with."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from darkroom.requests import MAX_NAME_CHARS, Scope
from darkroom.storage import database
from darkroom.storage.clients import Tokens
from darkroom.storage.database import Database
from tests.security.doors import assert_refused, client, issue, new_code, pair, tokens_in
from tests.serving import RunningServer

SMALL = {"prompt": "a red fox", "seed": 7, "num_inference_steps": 2}


def listed(server: RunningServer, device: str) -> dict[str, Any]:
    """A device as the owner sees it."""
    devices = server.http.get("/devices").json()["devices"]
    (found,) = (each for each in devices if each["id"] == device)
    assert isinstance(found, dict)
    return found


def ids(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["jobs"]]


# --- another token -------------------------------------------------------------------------


def test_a_phone_that_is_paired_again_finds_everything(server: RunningServer, photo: Path) -> None:
    first = pair(server, new_code(server))
    key = {"idempotency-key": "monday"}
    with client(server, first["token"]) as phone:
        files = {"image": photo.read_bytes()}
        made = phone.post("/img2img", data={**SMALL, "strength": "1"}, files=files).json()
        keyed = phone.post("/txt2img", json=SMALL, headers=key).json()
        phone.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 2})
        client_id = phone.get("/me").json()["client_id"]
    server.http.delete(f"/tokens/{first['id']}")

    second = pair(server, new_code(server, first["device"]), "another name")

    assert second["token"] != first["token"]
    assert (second["device"], second["name"]) == (first["device"], first["name"])
    with client(server, second["token"]) as phone:
        assert phone.get("/me").json()["client_id"] == client_id
        assert ids(phone.get("/jobs")) == [keyed["id"], made["id"]]
        assert phone.get(made["images"][0]["url"]).status_code == 200
        upload = made["request"]["image"].removeprefix("image:")
        assert phone.get(f"/images/{upload}").status_code == 200
        assert phone.post("/txt2img", json=SMALL, headers=key).json()["id"] == keyed["id"]
        assert phone.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 2


def test_a_home_screen_app_and_its_browser_are_one_device(server: RunningServer) -> None:
    browser = pair(server, new_code(server))
    app = pair(server, new_code(server, browser["device"]))

    with client(server, browser["token"]) as one, client(server, app["token"]) as other:
        job = one.post("/txt2img", json=SMALL).json()
        assert other.get(f"/jobs/{job['id']}").json()["client_id"] == job["client_id"]
    tokens = [token["id"] for token in listed(server, browser["device"])["tokens"]]
    assert tokens == [browser["id"], app["id"]]


@pytest.mark.parametrize(
    ("asked", "granted"), [({}, "own"), ({"scope": "use"}, "use"), ({"scope": "own"}, "own")]
)
def test_a_device_gets_the_scope_that_it_had(
    server: RunningServer, asked: dict[str, str], granted: str
) -> None:
    first = pair(server, new_code(server, scope="own"))
    server.http.delete(f"/devices/{first['device']}/tokens")

    assert pair(server, new_code(server, first["device"], **asked))["scope"] == granted
    assert listed(server, first["device"])["scope"] == granted


def test_a_code_for_a_device_that_is_not_there_is_refused(server: RunningServer) -> None:
    answer = server.http.post("/pair/codes", json={"device": "0123456789ab"})

    assert_refused(answer, 422, "validation")
    assert answer.json()["errors"][0]["pointer"] == "#/device"


def test_revoking_one_token_leaves_the_others(server: RunningServer) -> None:
    lost = pair(server, new_code(server))
    kept = pair(server, new_code(server, lost["device"]))
    small = {"prompt": "a red fox", "response_format": "url", "num_inference_steps": 2}

    def signed(token: str) -> str:
        with client(server, token) as program:
            url: str = program.post("/v1/images/generations", json=small).json()["data"][0]["url"]
            return url

    of_lost, of_kept = signed(lost["token"]), signed(kept["token"])
    with client(server, lost["token"]) as program:
        assert program.delete(f"/tokens/{lost['id']}").status_code == 204
        assert_refused(program.get("/me"), 401, "token")
    with client(server, kept["token"]) as program:
        assert program.get("/me").status_code == 200
    with client(server) as stranger:
        assert_refused(stranger.get(of_lost), 403, "signature")
        assert_refused(stranger.get(of_lost.replace(lost["id"], kept["id"])), 403, "signature")
        assert_refused(stranger.get(of_lost.partition("&token=")[0]), 403, "signature")
        assert stranger.get(of_kept).status_code == 200


@pytest.mark.slow
def test_a_stream_ends_with_the_token_that_opened_it(server: RunningServer) -> None:
    lost = pair(server, new_code(server))
    pair(server, new_code(server, lost["device"]))
    with (
        client(server, lost["token"]) as program,
        program.stream("GET", "/events") as answer,
    ):
        lines = answer.iter_lines()
        server.http.delete(f"/tokens/{lost['id']}")
        assert not [line for line in lines if line.startswith("event: ")]


# --- names ---------------------------------------------------------------------------------


@pytest.fixture
def tokens(opened: Database) -> Tokens:
    return Tokens(opened)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (["iPhone", "iPhone", "iPhone"], ["iPhone", "iPhone 2", "iPhone 3"]),
        (["iPhone 2", "iPhone", "iPhone"], ["iPhone 2", "iPhone", "iPhone 3"]),
        (["Ada", "ada"], ["Ada", "ada 2"]),
        (["x" * MAX_NAME_CHARS] * 2, ["x" * MAX_NAME_CHARS, "x" * (MAX_NAME_CHARS - 2) + " 2"]),
    ],
)
def test_a_device_has_a_name_of_its_own(tokens: Tokens, asked: list[str], given: list[str]) -> None:
    assert [tokens.create(name, Scope.USE)[0].name for name in asked] == given


def test_the_name_of_a_device_that_was_sent_away_stays_its_own(tokens: Tokens) -> None:
    tokens.revoke(tokens.create("iPhone", Scope.USE)[0].id)

    assert tokens.create("iPhone", Scope.USE)[0].name == "iPhone 2"


def test_the_owner_renames_a_device_and_its_jobs(server: RunningServer) -> None:
    phone = pair(server, new_code(server), "a phone without a name")
    with client(server, phone["token"]) as http:
        job = http.post("/txt2img", json=SMALL).json()
        answer = server.http.patch(f"/devices/{phone['device']}", json={"name": "Zoe's phone"})

        assert answer.json()["name"] == "Zoe's phone"
        assert http.get("/me").json()["name"] == "Zoe's phone"
        assert http.get(f"/jobs/{job['id']}").json()["client"] == "Zoe's phone"
        for same in ("Zoe's phone", "ZOE'S PHONE"):
            own = http.patch(f"/devices/{phone['device']}", json={"name": same})
            assert own.json()["name"] == same


def test_a_name_that_is_taken_is_refused(server: RunningServer) -> None:
    one, other = (pair(server, new_code(server), name) for name in ("Bob's phone", "tablet"))
    answer = server.http.patch(f"/devices/{other['device']}", json={"name": "bob's PHONE"})

    assert_refused(answer, 409, "name-taken")
    assert listed(server, other["device"])["name"] == other["name"]
    assert listed(server, one["device"])["name"] == one["name"]


# --- what the owner sees -------------------------------------------------------------------


def test_the_owner_sees_devices_and_what_they_have(server: RunningServer) -> None:
    phone = pair(server, new_code(server), "Eve's phone")
    with client(server, phone["token"]) as http:
        http.post("/txt2img", json=SMALL)
    before = listed(server, phone["device"])
    server.http.delete(f"/devices/{phone['device']}/tokens")
    after = listed(server, phone["device"])

    assert before["name"] == "Eve's phone"
    assert before["jobs"] == 1
    assert before["client_id"] == f"device:{phone['device']}"
    assert [token["id"] for token in before["tokens"]] == [phone["id"]]
    assert before["used_at"] is not None
    assert after == {**before, "tokens": []}
    with client(server, phone["token"]) as http:
        assert_refused(http.get("/me"), 401, "token")


def test_the_owners_list_is_filtered_by_who_asked_not_by_name(server: RunningServer) -> None:
    one, other = (pair(server, new_code(server), "Linux") for _ in range(2))
    made = {}
    for phone in (one, other):
        with client(server, phone["token"]) as http:
            job = http.post("/txt2img", json=SMALL).json()
            made[job["client_id"]] = job["id"]
    here = server.submit()

    assert here["client_id"] == server.http.get("/me").json()["client_id"]
    for client_id, job_id in made.items():
        assert ids(server.http.get("/jobs", params={"client_id": client_id})) == [job_id]
    local = ids(server.http.get("/jobs", params={"client_id": here["client_id"], "limit": 100}))
    assert here["id"] in local
    assert not set(made.values()) & set(local)
    with client(server, one["token"]) as guest:
        own, others = made
        assert ids(guest.get("/jobs", params={"client_id": own})) == [made[own]]
        assert ids(guest.get("/jobs", params={"client_id": others})) == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda http, _: http.get("/devices"),
        lambda http, other: http.patch(f"/devices/{other}", json={"name": "mine"}),
        lambda http, other: http.delete(f"/devices/{other}/tokens"),
        lambda http, other: http.post("/pair/codes", json={"device": other}),
    ],
    ids=["list", "rename", "revoke", "code"],
)
def test_devices_are_the_owners(
    server: RunningServer, ask: Callable[[httpx2.Client, str], httpx2.Response]
) -> None:
    other = issue(server, "somebody else")
    with client(server, issue(server, "guest")["token"]) as guest:
        assert_refused(ask(guest, other["device"]), 403, "scope")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/devices/0123456789ab", {"name": "x"}),
        ("DELETE", "/devices/0123456789ab/tokens", None),
    ],
)
def test_a_device_that_is_not_there(
    server: RunningServer, method: str, path: str, body: dict[str, str] | None
) -> None:
    assert_refused(server.http.request(method, path, json=body), 404, "not-found")


# --- on the command line -------------------------------------------------------------------


def darkroom(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "darkroom", *arguments, "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_darkroom_pair_lets_an_old_device_in_again(shut_server: RunningServer) -> None:
    with tokens_in(shut_server.data_dir) as tokens:
        lost, _ = tokens.create("Ada's tablet", Scope.OWN)
        tokens.revoke(lost.id)
    printed = darkroom(shut_server.data_dir, "pair", "--device", "ada's tablet").stdout

    assert "Pair Ada's tablet again, which may own the server" in printed
    (code,) = re.findall(r"^Code: (\S+)$", printed, re.MULTILINE)
    paired = pair(shut_server, code, "Safari")
    assert (paired["device"], paired["name"], paired["scope"]) == (lost.device, lost.name, "own")


def test_darkroom_pair_names_the_devices_there_are(tmp_path: Path) -> None:
    database.migrate(tmp_path / "darkroom.db")
    with tokens_in(tmp_path) as tokens:
        for name in ("iPhone", "tablet"):
            tokens.create(name, Scope.USE)
    result = darkroom(tmp_path, "pair", "--device", "phone")

    assert result.returncode == 1
    assert "there is no device 'phone'; there is iPhone, tablet" in result.stderr


@pytest.mark.slow
def test_a_device_is_sent_away_by_its_name(tmp_path: Path) -> None:
    database.migrate(tmp_path / "darkroom.db")
    with tokens_in(tmp_path) as tokens:
        first, _ = tokens.create("phone", Scope.USE)
        second, _ = tokens.create("phone", Scope.USE, first.device)
        tokens.create("phone", Scope.USE)
        revoked = darkroom(tmp_path, "token", "revoke", "phone")
        again = darkroom(tmp_path, "token", "revoke", "phone")
        left = [token.name for token in tokens.good()]
    listed = darkroom(tmp_path, "token", "list").stdout

    assert revoked.stdout.splitlines() == [f"revoked {one.id}  phone" for one in (first, second)]
    assert again.returncode == 1
    assert left == ["phone 2"]
    assert re.search(r"^revoked .*  phone$", listed, re.MULTILINE)


@pytest.mark.slow
def test_a_token_says_when_its_name_was_taken(tmp_path: Path) -> None:
    database.migrate(tmp_path / "darkroom.db")

    first, second = (darkroom(tmp_path, "token", "create", "laptop") for _ in range(2))

    assert first.stderr == ""
    assert re.fullmatch(r"dk_[\w-]{43}\n", second.stdout)
    assert "this one is laptop 2" in second.stderr
