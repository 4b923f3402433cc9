"""Names are looked up, never joined to a path: no trick finds a file, none makes a mistake."""

import http.client
import json
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from tests.serving import RunningServer

TRICKS = [
    "../../darkroom.db",
    "..%2f..%2fdarkroom.db",
    "%2e%2e/%2e%2e/darkroom.db",
    "....//....//darkroom.db",
    "..\\..\\darkroom.db",
    "..%5c..%5cdarkroom.db",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "file:///etc/passwd",
    "C:\\Windows\\win.ini",
    "~/.ssh/id_rsa",
    "darkroom.db%00.png",
    "%00",
    ".",
    "..",
    "%c0%ae%c0%ae%c0%af",
    "%ff",
    "%F0%9F%A6%8A",
    "%u002e",
    "x" * 3000,
    "CON",
    "'; DROP TABLE jobs; --",
    "{{7*7}}",
    "${jndi:ldap://x}",
]
PLACES = [
    ("GET", "/jobs/{}"),
    ("DELETE", "/jobs/{}"),
    ("GET", "/jobs/{}/events"),
    ("GET", "/jobs/{}/timeline"),
    ("GET", "/images/{}"),
    ("GET", "/images/{}?w=64"),
    ("GET", "/signed/{}?expires=99999999999&signature=x"),
    ("GET", "/v1/models/{}"),
    ("DELETE", "/images/{}"),
    ("DELETE", "/tokens/{}"),
    ("GET", "/docs/{}"),
    ("GET", "/static/{}"),
    ("GET", "/{}"),
]


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick[:20])
def test_no_trick_in_a_url_finds_anything(idle_server: RunningServer, trick: str) -> None:
    url = httpx2.URL(idle_server.url)
    path = quote(trick, safe="/%:~")  # as it stands; a client that tidies up would spoil it
    for method, place in PLACES:
        connection = http.client.HTTPConnection(url.host, url.port or 80, timeout=30)
        connection.request(method, place.format(path))
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if (place, trick) in {("/{}", "."), ("/{}", "..")}:
            continue  # the first page, by another name
        assert 300 <= answer.status < 500, (method, place, answer.status, body[:200])
        assert b"root:" not in body
        assert b"SQLite format" not in body


def post(server: RunningServer, path: str, body: dict[str, Any]) -> httpx2.Response:
    """Escapes what is not ASCII, so that half a character can be sent too."""
    headers = {"content-type": "application/json"}
    return server.http.post(path, content=json.dumps(body).encode(), headers=headers)


@pytest.mark.parametrize(
    "trick", [*TRICKS, "\x00", "a\x00b", "\u202e", "\ud83e"], ids=lambda trick: repr(trick)[:20]
)
def test_no_trick_in_a_name_finds_anything(idle_server: RunningServer, trick: str) -> None:
    for fields in (
        {"model": trick},
        {"scheduler": trick},
        {"loras": [{"name": trick}]},
    ):
        answer = post(idle_server, "/txt2img", {"prompt": "a fox", **fields})
        assert answer.status_code in (400, 422), answer.text
    for reference in (f"image:{trick}", trick):
        answer = post(idle_server, "/img2img", {"prompt": "a fox", "image": reference})
        assert answer.status_code in (400, 422), answer.text


def test_no_header_makes_a_mistake(idle_server: RunningServer) -> None:
    for name in ("host", "authorization", "cookie", "origin", "x-request-id", "prefer", "accept"):
        for value in ("", "\x7f", "[", "a" * 3000, "ü".encode(), b"\xff\xfe", "%00", "=;=;"):
            headers = {name: value}
            answer = idle_server.http.get("/me", headers=headers)  # type: ignore[arg-type]
            assert answer.status_code < 500, (name, value)
