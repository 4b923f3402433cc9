"""Getting a token by a code, keeping it, and who gets to see it."""

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom_client import Client, CredentialsError, PermissionDeniedError, credentials
from tests.sdk.scripted import ScriptedServer, json_reply
from tests.security.doors import new_code
from tests.serving import RunningServer

HEALTH = json_reply({"status": "ok", "version": "1"})


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's tokens are kept."""
    file = tmp_path / "settings" / "credentials.json"
    monkeypatch.setenv("DARKROOM_CREDENTIALS", str(file))
    return file


def shown(server: ScriptedServer) -> list[str | None]:
    """The tokens that a server got to see."""
    return [request.headers.get("Authorization") for request in server.received]


def test_a_code_lets_this_device_in_for_good(idle_server: RunningServer, kept: Path) -> None:
    with Client(idle_server.url) as client:
        assert client.pair(new_code(idle_server), "laptop") == kept
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    (token,) = json.loads(kept.read_text())["tokens"].values()

    me = idle_server.http.get("/me", headers={"authorization": f"Bearer {token}"}).json()
    assert me["name"] == "laptop"

    with Client() as later:  # neither address nor token are said again
        assert later.base_url == idle_server.url
        job = later.txt2img("a fox")
    assert idle_server.http.get("/me").json()["name"] != "laptop"
    job_id = job.id
    with Client() as later:
        assert [job.id for job in later.jobs()] == [job_id]  # the owner on this machine sees more
        later.job(job_id).cancel()


def test_a_wrong_code_keeps_nothing(idle_server: RunningServer, kept: Path) -> None:
    with Client(idle_server.url) as client, pytest.raises(PermissionDeniedError):
        client.pair("AAAA-AAAA")
    assert not kept.exists()


def test_a_token_is_shown_to_its_server_alone(
    scripted: Callable[..., ScriptedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    paired, other = scripted(json_reply({"token": "dk_secret"}), HEALTH), scripted(HEALTH)
    with Client(paired.url) as client:
        client.pair("code")
        client.health()
    for url in (paired.url + "/", other.url):
        with Client(url) as client:
            client.health()
    monkeypatch.setenv("DARKROOM_TOKEN", "dk_other")
    with Client() as client:
        client.health()
    assert shown(paired) == [None, "Bearer dk_secret", "Bearer dk_secret", "Bearer dk_other"]
    assert shown(other) == [None]


def test_pairing_twice_keeps_both(kept: Path) -> None:
    credentials.remember("http://box-a:7860/", "dk_a")
    credentials.remember("https://box-b", "dk_b")
    assert credentials.resolve(None, None) == ("https://box-b", "dk_b")
    assert credentials.resolve("http://BOX-A:7860", None) == ("http://box-a:7860", "dk_a")
    assert credentials.resolve("http://box-c", None) == ("http://box-c", None)
    assert [file.name for file in kept.parent.iterdir()] == [kept.name]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_file_that_others_may_read_is_refused(kept: Path) -> None:
    credentials.remember("http://box:7860", "dk_a")
    kept.chmod(0o644)
    with pytest.raises(CredentialsError, match="chmod 600"):
        Client()
    with Client("http://box:7860", token="dk_a") as client:  # which needs no file
        assert client.base_url == "http://box:7860"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"default": null, "tokens": []}', "\xff"])
def test_a_broken_file_is_named_before_the_code_is_spent(
    scripted: Callable[..., ScriptedServer], kept: Path, content: str
) -> None:
    server = scripted(json_reply({"token": "dk_secret"}))
    with Client(server.url, token="dk_any") as client:
        kept.parent.mkdir()
        kept.write_text(content, encoding="latin-1")
        kept.chmod(0o600)
        with pytest.raises(CredentialsError, match="pair again"):
            client.pair("code")
    assert server.received == []


def test_the_file_is_where_settings_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARKROOM_CREDENTIALS")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "settings"))
    for platform, folder in (
        ("linux", "settings"),
        ("darwin", "Library/Application Support"),
        ("win32", "settings"),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        assert credentials.path() == tmp_path / folder / "darkroom" / "credentials.json"
