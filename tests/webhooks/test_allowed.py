"""The server calls nobody but whom its owner has named, however the address is written."""

import pytest

from darkroom.destinations import DestinationError, is_allowed, parse, parse_prefix
from tests.api.test_bad_input import assert_problem
from tests.serving import RunningServer

ALLOWED = [
    ("https://ha.local:8123", "https://ha.local:8123/api/webhook/abc?x=/../y"),
    ("https://ha.local:8123/", "https://HA.local:8123"),
    ("https://ha.local", "https://ha.local:443/"),
    ("http://ha.local:80", "http://ha.local/x"),
    ("http://ha.local/api", "http://ha.local/api"),
    ("http://ha.local/api", "http://ha.local/api/"),
    ("http://ha.local/api/", "http://ha.local/api/webhook"),
    ("http://ha.local/api", "http://ha.local/api?token=1"),
    ("http://[fd00::1]:9", "http://[FD00::1]:9/x"),
]

ELSEWHERE = [
    ("https://ha.local", "http://ha.local/"),
    ("https://ha.local", "https://ha.local:8443/"),
    ("https://ha.local", "https://ha.local.evil.example/"),
    ("https://ha.local", "https://evil.example/?https://ha.local/"),
    ("https://ha.local", "https://ha.local./"),
    ("http://127.0.0.1:9", "http://localhost:9/"),
    ("http://127.0.0.1:9", "http://2130706433:9/"),
    ("http://ha.local/api", "http://ha.local/apis"),
    ("http://ha.local/api", "http://ha.local/"),
    ("http://ha.local/api", "http://ha.local/API"),
    ("http://ha.local/api", "http://ha.local/%61pi"),
    ("http://ha.local/api", "http://ha.local//api"),
]

NO_ADDRESSES = [
    "http://ha.local@evil.example/",
    "http://user:word@ha.local/",
    "http://@ha.local/",
    "http://ha.local/#part",
    "http://ha.local/api/../admin",
    "http://ha.local/api/%2E%2e/admin",
    "http://ha.local/api/.%2e",
    "http://ha.local/api/./x",
    "http://ha.local/api%2f..%2fadmin",
    "http://ha.local/api%5c..%5cadmin",
    "http://ha.local\\@evil.example/",
    "http://ha.local/a\\b",
    "http://ha.local/a b",
    "http://ha.local/a\nb",
    "http://ha.local/a\x00b",
    " http://ha.local/",
    "http://h\u00e4.local/",
    "http://ha%2elocal/",
    "http://ha.local:0/",
    "http://ha.local:65536/",
    "http://ha.local:x/",
    "http:ha.local",
    "http:/ha.local",
    "http:///x",
    "//ha.local/",
    "/api",
    "ha.local",
    "file:///etc/passwd",
    "ftp://ha.local/",
    "javascript:alert(1)",
    "http://",
    "",
    "http://ha.local/" + "x" * 2000,
]


@pytest.mark.parametrize(("prefix", "url"), ALLOWED)
def test_what_lies_at_or_below_is_allowed(prefix: str, url: str) -> None:
    assert is_allowed(parse(url), [prefix])


@pytest.mark.parametrize(("prefix", "url"), ELSEWHERE)
def test_what_lies_elsewhere_is_not(prefix: str, url: str) -> None:
    assert not is_allowed(parse(url), [prefix])


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_what_could_be_read_in_two_ways_is_no_address(url: str) -> None:
    with pytest.raises(DestinationError) as refusal:
        parse(url)

    assert "ha.local" not in str(refusal.value)


def test_an_entry_with_a_query_is_none() -> None:
    with pytest.raises(DestinationError):
        parse_prefix("http://ha.local/?x")


def test_nobody_is_called_unless_the_owner_says_so(idle_server: RunningServer) -> None:
    before = idle_server.http.get("/jobs").json()["jobs"][:1]
    asked = {"prompt": "x", "webhook": "http://127.0.0.1:9/s3cret"}

    answer = idle_server.http.post("/txt2img", json=asked)

    assert "webhooks.allow" in assert_problem(answer, "#/webhook")
    assert "s3cret" not in answer.text
    assert idle_server.http.get("/jobs").json()["jobs"][:1] == before
