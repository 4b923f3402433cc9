"""Behind reverse proxies: who is believed about where a request comes from."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
from pydantic import ValidationError

from darkroom.config import WebSettings
from darkroom.requests import Scope
from tests.security.doors import assert_refused, new_code, tokens_in
from tests.serving import RunningServer, running

# Where the tests call from, and a network further out.
PROXIES = '["127.0.0.1", "10.9.0.0/16", "fd00:9::/32"]'
FAILURES_PER_MINUTE = 3


@pytest.fixture(scope="module")
def shut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Asks for tokens; loopback would be trusted if it were not a proxy's."""
    with running(
        tmp_path_factory.mktemp("shut"),
        process="web",
        DARKROOM_WEB__TRUSTED_PROXIES=PROXIES,
        DARKROOM_AUTH__FAILURES_PER_MINUTE=str(FAILURES_PER_MINUTE),
        DARKROOM_LOG_FORMAT="json",
    ) as started:
        yield started


@pytest.fixture(scope="module")
def unlocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Without tokens, so that `/me` says which address is taken for the caller's."""
    with running(
        tmp_path_factory.mktemp("unlocked"),
        process="web",
        DARKROOM_WEB__TRUSTED_PROXIES=PROXIES,
        DARKROOM_AUTH__ENABLED="false",
    ) as started:
        yield started


@contextmanager
def from_elsewhere(server: RunningServer) -> Iterator[httpx2.Client]:
    """A caller at an address that is no proxy's."""
    transport = httpx2.HTTPTransport(local_address="127.0.0.2")
    with httpx2.Client(base_url=server.url, transport=transport, timeout=120) as http:
        yield http


@pytest.mark.parametrize(
    ("hops", "caller"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),  # the left one the caller made up
        (["127.0.0.1, 203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9"], "203.0.113.9"),  # two headers are one list
        (["203.0.113.9, 10.9.1.1"], "203.0.113.9"),  # a chain of two
        (["203.0.113.9,10.9.1.1,fd00:9::1"], "203.0.113.9"),
        (["10.9.1.1"], "10.9.1.1"),  # the proxy's own machine asks
        (["2001:db8::7"], "2001:db8::7"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, unknown"], "127.0.0.1"),  # no address, no further
        (["203.0.113.9, 10.9.1.1:80"], "127.0.0.1"),
        ([""], "127.0.0.1"),
        ([","], "127.0.0.1"),
        ([], "127.0.0.1"),
    ],
)
def test_the_caller_is_the_rightmost_hop_that_is_no_proxy(
    unlocked: RunningServer, hops: list[str], caller: str
) -> None:
    me = unlocked.http.get("/me", headers=[("x-forwarded-for", hop) for hop in hops]).json()

    assert (me["client"], me["name"], me["scope"]) == (f"address:{caller}", caller, "use")
    assert (me["client_id"], me["device"]) == (f"address:{caller}", None)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "203.0.113.9"},
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=203.0.113.9;proto=https"},
        {"x-real-ip": "203.0.113.9"},
    ],
)
def test_nobody_else_is_believed(unlocked: RunningServer, headers: dict[str, str]) -> None:
    with from_elsewhere(unlocked) as http:
        assert http.get("/me", headers=headers).json()["client"] == "address:127.0.0.2"


def test_only_x_forwarded_for_is_read(unlocked: RunningServer) -> None:
    headers = {"forwarded": "for=203.0.113.9", "x-real-ip": "203.0.113.9"}

    assert unlocked.http.get("/me", headers=headers).json()["client"] == "address:127.0.0.1"


@pytest.mark.parametrize("hop", [None, "127.0.0.1", "::1", "127.0.0.1, 127.0.0.1", "10.9.1.1"])
def test_who_comes_through_a_proxy_is_never_this_machine(
    shut: RunningServer, hop: str | None
) -> None:
    headers = {} if hop is None else {"x-forwarded-for": hop}

    assert_refused(shut.http.get("/models", headers=headers), 401, "token")


def test_a_program_on_this_machine_that_is_no_proxy_is_trusted(shut: RunningServer) -> None:
    with from_elsewhere(shut) as http:
        assert http.get("/me").json()["client"] == "local"
        passed_on = http.get("/me", headers={"x-forwarded-for": "127.0.0.1"})
        assert_refused(passed_on, 401, "token")


def test_wrong_tokens_and_codes_are_counted_by_caller(shut: RunningServer) -> None:
    def guess(caller: str) -> httpx2.Response:
        headers = {"x-forwarded-for": f"192.0.2.1, {caller}"}
        return shut.http.post("/pair", json={"code": "AAAA-AAAA", "name": "x"}, headers=headers)

    def try_token(caller: str) -> httpx2.Response:
        headers = {"x-forwarded-for": caller, "authorization": "Bearer wrong"}
        return shut.http.get("/models", headers=headers)

    for _ in range(FAILURES_PER_MINUTE):
        assert_refused(guess("203.0.113.20"), 403, "pairing-code")
        assert_refused(try_token("203.0.113.21"), 401, "token")
    assert_refused(guess("203.0.113.20"), 429, "too-many-failures")
    assert_refused(try_token("203.0.113.21"), 429, "too-many-failures")
    assert_refused(guess("203.0.113.22"), 403, "pairing-code")
    assert_refused(try_token("203.0.113.23"), 401, "token")


def test_the_log_says_where_strangers_come_from(shut: RunningServer) -> None:
    passed_on = {"x-forwarded-for": "192.0.2.1, 203.0.113.30"}
    with from_elsewhere(shut) as http:
        asked = {
            "203.0.113.30": shut.http.get("/models", headers=passed_on),
            "127.0.0.2": http.get("/models", headers=passed_on),
            None: http.get("/models"),  # a program on this machine, which is known
        }

    logged = [json.loads(line) for line in shut.log.read_text().splitlines() if line[0] == "{"]
    address = {line.get("request_id"): line.get("address") for line in logged}
    for expected, answer in asked.items():
        assert address[answer.headers["x-request-id"]] == expected


def test_addresses_and_cookies_know_the_scheme_that_the_proxy_was_asked_by(
    shut: RunningServer,
) -> None:
    with tokens_in(shut.data_dir) as tokens:
        owner = {"authorization": f"Bearer {tokens.create('owner', Scope.OWN)[1]}"}
    there = {**owner, "host": "pictures.example", "x-forwarded-host": "evil.example"}

    def invitation(http: httpx2.Client, **headers: str) -> str:
        answer = http.post("/pair/codes", json={"scope": "use"}, headers={**there, **headers})
        url: str = answer.json()["url"]
        return url.partition("#")[0]

    assert invitation(shut.http, **{"x-forwarded-proto": "https"}) == "https://pictures.example/"
    assert invitation(shut.http, **{"x-forwarded-proto": "http"}) == "http://pictures.example/"
    assert invitation(shut.http, **{"x-forwarded-proto": "gopher"}) == "http://pictures.example/"
    with from_elsewhere(shut) as http:
        assert invitation(http, **{"x-forwarded-proto": "https"}) == "http://pictures.example/"
        code = new_code(RunningServer(shut.url, shut.data_dir, shut.process, http, shut.log))

    paired = shut.http.post(
        "/pair", json={"code": code, "name": "phone"}, headers={"x-forwarded-proto": "https"}
    )
    assert "Secure" in paired.headers["set-cookie"]


def test_a_page_that_came_over_tls_must_not_be_used_by_one_that_did_not(
    shut: RunningServer,
) -> None:
    def ask(page: str) -> httpx2.Response:
        headers = {"host": "pictures.example", "origin": page, "x-forwarded-proto": "https"}
        return shut.http.post("/pair", json={"code": "AAAA-AAAA", "name": "x"}, headers=headers)

    assert_refused(ask("http://pictures.example"), 403, "door")
    assert_refused(ask("https://pictures.example"), 403, "pairing-code")


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "10.9.0.1/16", "proxy.example", "*"])
def test_everybody_and_names_are_no_proxies(network: str) -> None:
    with pytest.raises(ValidationError):
        WebSettings(trusted_proxies=(network,))
