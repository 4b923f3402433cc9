"""`web.allowed_origins`: pages that may read answers, and that still need a token."""

import json
import socket
from collections.abc import Iterator

import httpx2
import pytest

from darkroom.config import WebSettings
from tests.security.doors import assert_refused, client, issue
from tests.serving import RunningServer, running

PAGE = "http://192.168.1.9:5173"
OTHER = "http://192.168.1.9:5174"
ORIGINS = [PAGE, "capacitor://localhost", "null"]
MAX_BODY = 2**16


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Trusts programs on this machine, and lets pages of some origins in."""
    with running(
        tmp_path_factory.mktemp("host"),
        process="web",
        DARKROOM_WEB__ALLOWED_ORIGINS=json.dumps(ORIGINS),
        DARKROOM_WEB__MAX_BODY_BYTES=str(MAX_BODY),
    ) as started:
        yield started


@pytest.fixture(scope="module")
def token(host: RunningServer) -> str:
    secret: str = issue(host, "a page")["token"]
    return secret


def preflight(host: RunningServer, origin: str, path: str, **more: str) -> httpx2.Response:
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-retry-count",
        **more,
    }
    return host.http.options(path, headers=asked)


def cors(answer: httpx2.Response) -> dict[str, str]:
    found = answer.headers.items()
    return {name: value for name, value in found if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("path", ["/txt2img", "/v1/images/edits", "/sdapi/v1/txt2img", "/nothing"])
def test_a_preflight_allows_what_it_asks_for(host: RunningServer, origin: str, path: str) -> None:
    answer = preflight(host, origin, path)

    assert answer.status_code == 204
    assert not answer.content
    assert cors(answer) == {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
        "access-control-allow-headers": "authorization,content-type,x-stainless-retry-count",
        "access-control-max-age": "600",
        "access-control-expose-headers": cors(answer)["access-control-expose-headers"],
    }
    assert "Origin" in answer.headers["vary"]
    assert host.http.get("/healthz").status_code == 200  # the connection goes on


def test_a_page_elsewhere_may_ask_for_a_private_network(host: RunningServer) -> None:
    private = {"access-control-request-private-network": "true"}

    answer = preflight(host, PAGE, "/models", **private)
    assert answer.headers["access-control-allow-private-network"] == "true"
    refused = preflight(host, OTHER, "/models", **private)
    assert cors(refused) == {}


@pytest.mark.parametrize(
    "origin",
    [OTHER, PAGE + "/", PAGE.upper(), "http://192.168.1.9", "https://192.168.1.9:5173", "*"],
)
def test_other_pages_are_told_nothing(host: RunningServer, token: str, origin: str) -> None:
    answer = preflight(host, origin, "/models")
    assert cors(answer) == {}
    assert "Origin" in answer.headers["vary"]
    bearer = {"origin": origin, "authorization": f"Bearer {token}"}
    assert cors(host.http.get("/models", headers=bearer)) == {}
    assert_refused(host.http.get("/models", headers={"origin": origin}), 403, "door")


def test_a_bare_options_is_no_preflight(host: RunningServer) -> None:
    answer = host.http.options("/v1/images/generations", headers={"origin": PAGE})

    assert answer.status_code == 200
    assert "POST" in answer.headers["allow"]
    assert cors(answer)["access-control-allow-origin"] == PAGE


def test_every_answer_can_be_read_also_those_of_errors(host: RunningServer, token: str) -> None:
    page = {"origin": PAGE, "authorization": f"Bearer {token}"}
    small = {"prompt": "a fox"}
    answers = {
        200: host.http.get("/models", headers=page),
        202: host.http.post("/txt2img", json=small, headers={**page, "prefer": "respond-async"}),
        400: host.http.post("/v1/images/generations", json={}, headers=page),
        404: host.http.get("/jobs/none", headers=page),
        405: host.http.delete("/models", headers=page),
        # This one never reaches the application.
        413: host.http.post("/txt2img", content=(MAX_BODY + 1) * b"x", headers=page),
    }
    for status, answer in answers.items():
        assert answer.status_code == status, answer.text
        assert answer.headers["access-control-allow-origin"] == PAGE
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"X-Ignored-Fields", "X-Request-Id", "Retry-After", "Location"} <= {*exposed}
        assert "access-control-allow-credentials" not in answer.headers
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    ("wrong", "status"), [(b"Bad Name: x", b"400"), (b"X: " + 70_000 * b"a", b"431")]
)
def test_a_page_can_read_why_its_request_cannot_be_parsed(
    host: RunningServer, wrong: bytes, status: bytes
) -> None:
    origin = b"origin: " + PAGE.encode()
    url = httpx2.URL(host.url)
    with socket.create_connection((url.host, url.port)) as connection:
        head = [b"GET /models HTTP/1.1", b"Host: a", origin, wrong]
        connection.sendall(b"\r\n".join([*head, b"", b""]))
        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"\r\naccess-control-allow-" + origin + b"\r\n" in answer


def test_answers_to_others_say_that_they_vary(host: RunningServer) -> None:
    answer = host.http.get("/models")

    assert answer.headers["vary"] == "Origin"
    assert cors(answer) == {}


def test_a_page_needs_a_token_also_on_this_machine(host: RunningServer, token: str) -> None:
    """Neither that nor what a browser adds by itself is enough."""
    page = {"origin": PAGE}

    def me(**more: str) -> httpx2.Response:
        return host.http.get("/me", headers={**page, **more})

    for nothing in ({}, {"cookie": f"darkroom_token={token}"}, {"authorization": "Bearer x"}):
        refused = me(**nothing)
        assert_refused(refused, 401, "token")
        assert refused.headers["access-control-allow-origin"] == PAGE
    with_password = host.http.get("/me", headers=page, auth=("me", token))
    assert_refused(with_password, 401, "token")
    for key in ({"authorization": f"Bearer {token}"}, {"api-key": token}, {"x-api-key": token}):
        assert me(**key).json()["name"] == "a page"
    code = {"code": "AAAA-AAAA", "name": "x"}
    assert host.http.post("/pair", json=code, headers=page).status_code == 401


def test_without_tokens_a_page_needs_one_all_the_same(open_server: RunningServer) -> None:
    """Its origin is not in the list; nor would the list be a reason to let it in."""
    answer = open_server.http.get("/models", headers={"origin": PAGE})

    assert_refused(answer, 403, "door")


def test_by_default_no_answer_says_anything_of_origins(
    idle_server: RunningServer,
) -> None:
    with client(idle_server, issue(idle_server, "a page")["token"], origin=PAGE) as http:
        answer = http.get("/models")
    assert answer.status_code == 200
    assert cors(answer) == {}
    assert "vary" not in answer.headers


@pytest.mark.parametrize("origin", ["*", "null", PAGE, "app://obsidian.md", "http://[fd00::2]:8"])
def test_what_an_origin_is(origin: str) -> None:
    assert WebSettings(allowed_origins=(origin,)).allowed_origins == (origin,)


@pytest.mark.parametrize(
    "text",
    [
        *("192.168.1.9:5173", "http://a.example/", "http://a.example/page", "http://A.example"),
        *("http://a.example:80", "https://a.example:443", "http://*.example", "", "http://"),
        *("http://me@a.example", "http://a.example?x"),
    ],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no origin as browsers send it"):
        WebSettings(allowed_origins=(text,))
