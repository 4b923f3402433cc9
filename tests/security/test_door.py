"""Every route is shut to strangers, whatever they say of themselves."""

import base64
import json
import re
import socket
import subprocess
import sys
from dataclasses import dataclass

import httpx2
import pytest

from darkroom.compat.openai.routes import WITHOUT_VERSION
from darkroom.requests import Scope
from tests.security.doors import (
    PASSED_ON,
    assert_refused,
    client,
    issue,
    jobs_in,
    tokens_in,
)
from tests.serving import RunningServer

OPEN = {
    ("GET", "/"),
    ("GET", "/assets/<name>"),
    ("GET", "/ca"),
    ("GET", "/favicon.ico"),
    *(("GET", f"/fleet/{place}") for place in ("boxes/own", "digests", "files", "models")),
    ("GET", "/healthz"),
    ("GET", "/icons/<name>"),
    ("GET", "/manifest.webmanifest"),
    ("GET", "/readyz"),
    ("GET", "/signed/<image_id>"),
    ("GET", "/static/<path:filename>"),
    ("GET", "/sw.js"),
    ("POST", "/fleet/boxes"),
    ("POST", "/pair"),
}


OTHER_APIS = ("/sdapi/", "/v1/", *WITHOUT_VERSION)


@dataclass(frozen=True)
class Route:
    method: str
    rule: str
    open: bool


LIST_ROUTES = """
import json, os, sys
from pathlib import Path
from darkroom.config import Settings
from darkroom.compat.openai.routes import WITHOUT_VERSION
from darkroom.storage import database
from darkroom.api.app import create_app

settings = Settings(data_dir=Path(sys.argv[1]))
database.migrate(settings.database_path)
app = create_app(settings)
print(json.dumps([
    (method, rule.rule, getattr(app.view_functions[rule.endpoint], "open_to_all", False))
    for rule in app.url_map.iter_rules()
    for method in sorted(rule.methods - {"HEAD", "OPTIONS"})
]), flush=True)
os._exit(0)  # its threads would go on
"""


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[Route]:
    """Every route of the real application, so that a new one is covered on its first day."""
    command = [sys.executable, "-c", LIST_ROUTES, str(tmp_path_factory.mktemp("app"))]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [Route(*route) for route in json.loads(listed)]


def filled(rule: str) -> str:
    """A rule's URL with something in its places."""
    choice = re.search(r"any\('([^']+)'", rule)
    return re.sub(r"<[^>]+>", choice[1] if choice else "anything", rule)


def test_no_route_answers_a_stranger(
    routes: list[Route], server: RunningServer, stranger: httpx2.Client
) -> None:
    shut = [route for route in routes if not route.open]
    assert Route("POST", "/txt2img", False) in shut
    with client(server) as elsewhere:
        for http in (elsewhere, stranger):
            for route in shut:
                answer = http.request(route.method, filled(route.rule))
                if route.rule.startswith(OTHER_APIS):  # whose errors have shapes of their own
                    assert answer.status_code == 401
                    assert answer.json()["error"]
                else:
                    assert_refused(answer, 401, "token")
                assert answer.headers["www-authenticate"].startswith('Bearer realm="darkroom"')


def test_open_routes_are_the_ones_we_know(routes: list[Route]) -> None:
    assert {(route.method, route.rule) for route in routes if route.open} == OPEN


def test_a_stranger_is_not_told_which_pages_there_are(stranger: httpx2.Client) -> None:
    for method, path in (("GET", "/no-such-page"), ("DELETE", "/"), ("GET", "/pair")):
        assert_refused(stranger.request(method, path), 401, "token")


def test_the_shell_is_open_and_says_nothing_personal(
    server: RunningServer, stranger: httpx2.Client
) -> None:
    assert stranger.get("/").status_code == 200
    assert stranger.get("/static/docs.js").status_code == 200
    assert stranger.get("/healthz").json()["status"] == "ok"
    with client(server) as elsewhere:
        assert elsewhere.get("/readyz").json() == {"status": "ready"}
    assert server.http.get("/readyz").json()["workers"]


def test_a_preflight_needs_no_token_and_allows_no_other_site(stranger: httpx2.Client) -> None:
    answer = stranger.options("/txt2img", headers={"origin": "https://evil.example"})

    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


# --- ways in -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secret(shut_server: RunningServer) -> str:
    with tokens_in(shut_server.data_dir) as tokens:
        return tokens.create("a program", Scope.USE)[1]


def test_a_token_opens_as_bearer_as_password_and_as_cookie(
    stranger: httpx2.Client, secret: str
) -> None:
    for ways in (
        {"headers": {"authorization": f"Bearer {secret}"}},
        {"headers": {"authorization": f"bearer  {secret}"}},
        {"auth": ("whoever", secret)},
        {"auth": ("", secret)},
        {"headers": {"cookie": f"darkroom_token={secret}"}},
    ):
        answer = stranger.get("/me", **ways)
        assert answer.status_code == 200, ways
        assert answer.json()["name"] == "a program"
        assert answer.json()["scope"] == "use"


WRONG = "dk_" + "A" * 43


def basic(user_and_password: str) -> str:
    return f"Basic {base64.b64encode(user_and_password.encode()).decode()}"


def test_a_token_is_read_wherever_programs_put_a_key(stranger: httpx2.Client, secret: str) -> None:
    for headers in (
        {"authorization": secret},
        {"authorization": basic(f"{secret}:")},
        {"authorization": basic(secret)},
        {"authorization": basic(f"{secret}:x")},
        {"api-key": secret},
        {"x-api-key": secret},
        {"x-api-key": secret, "authorization": "Bearer placeholder"},
    ):
        for path in ("/me", "/sdapi/v1/options", "/v1/models"):
            assert stranger.get(path, headers=headers).status_code == 200, (path, headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {WRONG}"},
        {"authorization": WRONG},
        {"authorization": f"Token {WRONG}"},
        {"authorization": "Bearer dk_short"},
        {"authorization": basic(f"me:{WRONG}")},
        {"authorization": basic(f"{WRONG}:")},
        {"authorization": "Bearer placeholder", "api-key": WRONG},
        {"x-api-key": WRONG},
    ],
)
def test_a_wrong_or_revoked_token_is_noticed_on_this_machine_too(
    idle_server: RunningServer, headers: dict[str, str]
) -> None:
    for path in ("/models", "/healthz"):
        answer = idle_server.http.get(path, headers=headers)

        assert_refused(answer, 401, "token")
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


PLACEHOLDERS = [
    {"authorization": "Bearer x"},
    {"authorization": "Bearer sk-no-key-required"},
    {"authorization": "Bearer"},
    {"authorization": ""},
    {"authorization": "Basic"},
    {"authorization": "Basic Og=="},  # nothing, a colon, nothing
    {"authorization": basic("me:")},
    {"authorization": basic("user:password")},
    {"authorization": "Basic %%%"},
    {"authorization": "Digest username=me"},
    {"authorization": "nonsense"},
    {"api-key": "x"},
    {"x-api-key": ""},
]
EMPTY = [
    *({"authorization": ""}, {"authorization": "Bearer"}, {"authorization": "Basic"}),
    *({"authorization": "Basic Og=="}, {"api-key": ""}),
]


def test_a_placeholder_is_no_reason_to_refuse_who_needs_no_token(
    idle_server: RunningServer,
) -> None:
    """And none is a guess: there are more of them than guesses that an address has."""
    for headers in 2 * PLACEHOLDERS:
        answer = idle_server.http.get("/me", headers=headers)
        assert answer.status_code == 200, headers
        assert answer.json()["client"] == "local"


def test_a_placeholder_beside_a_cookie_does_not_matter(
    stranger: httpx2.Client, secret: str
) -> None:
    headers = {"cookie": f"darkroom_token={secret}", "authorization": "Bearer x"}

    assert stranger.get("/me", headers=headers).json()["name"] == "a program"


def test_an_empty_credential_is_none_and_no_guess(stranger: httpx2.Client) -> None:
    for headers in 10 * EMPTY:
        answer = stranger.get("/models", headers=headers)

        assert_refused(answer, 401, "token")
        assert "not known" not in answer.json()["detail"]
        assert "invalid_token" not in answer.headers["www-authenticate"]


def test_a_placeholder_from_elsewhere_opens_only_what_is_open(stranger: httpx2.Client) -> None:
    headers = {"authorization": "Bearer placeholder"}

    refused = stranger.get("/models", headers=headers)
    assert_refused(refused, 401, "token")
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert stranger.get("/healthz", headers=headers).status_code == 200


def test_a_browser_is_not_made_to_ask_for_a_password(stranger: httpx2.Client) -> None:
    program = stranger.get("/models")
    browser = stranger.get("/models", headers={"user-agent": "Mozilla/5.0 (iPhone)"})

    assert "Basic" in program.headers["www-authenticate"]
    assert "Basic" not in browser.headers["www-authenticate"]


# --- this machine --------------------------------------------------------------------------


def test_this_machine_is_trusted_by_its_own_names(server: RunningServer) -> None:
    port = httpx2.URL(server.url).port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "LOCALHOST"):
        answer = server.http.get("/me", headers={"host": host})
        assert answer.json() == {
            "client": "local",
            "client_id": "local",
            "device": None,
            "name": "this machine",
            "scope": "own",
        }


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},  # DNS rebinding: a stranger's name that resolves to us
        {"host": "localhost.evil.example"},
        {"host": "localhost@evil.example"},
        {"host": "evil.example@localhost"},
        {"host": "192.168.1.5:7860"},
        {"x-forwarded-for": "203.0.113.9"},  # a proxy that lets strangers in
        {"x-forwarded-proto": "https"},
        {"forwarded": "for=203.0.113.9"},
        {"x-real-ip": "127.0.0.1"},
        {"via": "1.1 proxy"},
        {"cf-connecting-ip": "203.0.113.9"},
        {"tailscale-user-login": "ada@example.com"},
    ],
)
@pytest.mark.parametrize("path", ["/txt2img", "/jobs", "/models"])
def test_rebinding_and_proxies_are_not_this_machine(
    server: RunningServer, headers: dict[str, str], path: str
) -> None:
    method = "POST" if path == "/txt2img" else "GET"
    answer = server.http.request(method, path, json={"prompt": "a fox"}, headers=headers)

    assert_refused(answer, 401, "token")


def test_a_proxy_that_says_nothing_of_itself_speaks_old_http(server: RunningServer) -> None:
    """As nginx does unless told otherwise."""
    url = httpx2.URL(server.url)
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.sendall(b"GET /models HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert b" 401 " in answer.splitlines()[0]


# --- other people's pages ------------------------------------------------------------------

FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:1"},  # another server on this machine
    {"origin": "http://localhost:1"},
    {"origin": "http://["},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_foreign_page_is_refused_on_this_machine_too(
    server: RunningServer, headers: dict[str, str]
) -> None:
    before = jobs_in(server.data_dir)
    for method, path in (("POST", "/txt2img"), ("GET", "/jobs"), ("POST", "/pair")):
        body = {"prompt": "a fox"} if path == "/txt2img" else {"code": "AAAA-AAAA", "name": "x"}
        answer = server.http.request(method, path, json=body, headers=headers)
        assert_refused(answer, 403, "door")

    assert jobs_in(server.data_dir) == before


@pytest.mark.parametrize("headers", FOREIGN)
def test_nothing_that_a_browser_adds_by_itself_helps_a_foreign_page(
    stranger: httpx2.Client, secret: str, headers: dict[str, str]
) -> None:
    cookie = stranger.get("/jobs", headers={**headers, "cookie": f"darkroom_token={secret}"})
    password = stranger.get("/jobs", headers=headers, auth=("me", secret))
    as_user = stranger.get("/jobs", headers=headers, auth=(secret, ""))
    bearer = stranger.get("/jobs", headers={**headers, "authorization": f"Bearer {secret}"})

    assert_refused(cookie, 403, "door")
    assert_refused(password, 403, "door")
    assert_refused(as_user, 403, "door")
    assert bearer.status_code == 200


def test_a_page_of_ours_may_use_the_server(server: RunningServer) -> None:
    ours = {"origin": server.url, "sec-fetch-site": "same-origin"}

    assert server.http.get("/models", headers=ours).status_code == 200
    assert server.http.get("/models", headers={"sec-fetch-site": "none"}).status_code == 200


# --- without tokens ------------------------------------------------------------------------


def test_without_tokens_each_address_is_a_client(open_server: RunningServer) -> None:
    me = open_server.http.get("/me", headers=PASSED_ON).json()

    assert me == {
        "client": "address:127.0.0.1",
        "client_id": "address:127.0.0.1",
        "device": None,
        "name": "127.0.0.1",
        "scope": "use",
    }
    assert_refused(open_server.http.get("/tokens", headers=PASSED_ON), 403, "scope")


def test_without_tokens_the_host_must_still_be_ours(open_server: RunningServer) -> None:
    def status(host: str) -> int:
        answer = open_server.http.get("/models", headers={"host": host, **PASSED_ON})
        return answer.status_code

    assert status("192.168.1.5:7860") == 200
    assert status("[fd00::2]:7860") == 200
    assert status("pictures.example:7860") == 200
    assert status("evil.example") == 403
    assert status("pictures.example.evil.example") == 403


def test_without_tokens_a_wrong_one_is_ignored(open_server: RunningServer) -> None:
    for headers in (*PLACEHOLDERS, {"authorization": f"Bearer {WRONG}"}, {"x-api-key": WRONG}):
        answer = open_server.http.get("/me", headers={**PASSED_ON, **headers})
        assert answer.status_code == 200, headers
        assert answer.json()["client"] == "address:127.0.0.1"


def test_without_tokens_a_valid_one_still_says_who_asks(open_server: RunningServer) -> None:
    with tokens_in(open_server.data_dir) as tokens:
        _, valid = tokens.create("a phone", Scope.USE)
    with client(open_server, valid) as phone:
        assert phone.get("/me").json()["name"] == "a phone"


def test_without_tokens_a_foreign_page_is_refused_all_the_same(open_server: RunningServer) -> None:
    headers = {"origin": "https://evil.example", "authorization": "Bearer x"}

    assert_refused(open_server.http.get("/models", headers=headers), 403, "door")


# --- what every answer carries -------------------------------------------------------------


def test_every_answer_tells_browsers_to_behave(server: RunningServer) -> None:
    answers = [server.http.get(path) for path in ("/", "/docs", "/me", "/nope", "/static/docs.js")]
    with client(server) as stranger:
        answers.append(stranger.get("/jobs"))
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
    assert server.http.get("/me").headers["cache-control"] == "no-store"


def test_the_api_document_says_how_to_come_in(server: RunningServer) -> None:
    document = server.http.get("/openapi.json").json()

    assert document["components"]["securitySchemes"].keys() == {"bearer", "basic", "cookie"}
    assert document["security"] == [{"bearer": []}, {"basic": []}, {"cookie": []}]
    assert document["paths"]["/pair"]["post"]["security"] == []


def test_owners_things_are_not_for_guests(server: RunningServer) -> None:
    guest = issue(server, "guest")
    with client(server, guest["token"]) as http:
        assert_refused(http.get("/tokens"), 403, "scope")
        assert_refused(http.post("/tokens", json={"name": "more", "scope": "own"}), 403, "scope")
        assert_refused(http.post("/pair/codes", json={"scope": "own"}), 403, "scope")
        assert_refused(http.delete("/tokens/someone"), 403, "scope")
