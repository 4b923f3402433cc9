"""The server behind nginx and behind Caddy, by the examples in `deploy/`."""

from collections.abc import Iterator
from io import BytesIO
from random import Random

import httpx2
import pytest
from PIL import Image

from darkroom.asgi.connection import KEEP_ALIVE_S
from darkroom.config import WebSettings
from darkroom.requests import Scope
from tests.deployment.fronts import DEPLOY, NAME, Front, proxy
from tests.deployment.units import behind_a_proxy, running_units
from tests.security.doors import assert_refused, tokens_in
from tests.serving import RunningServer, parse_events

pytestmark = pytest.mark.slow

FAILURES_PER_MINUTE = 3
# Both proxies stand before one server, which counts by address.
GUESSERS = {"nginx": ("127.0.0.3", "127.0.0.4"), "caddy": ("127.0.0.5", "127.0.0.6")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Started by its systemd units, with the settings that the examples ask for."""
    settings = behind_a_proxy("nginx.conf")
    assert settings == behind_a_proxy("Caddyfile")
    with running_units(
        tmp_path_factory.mktemp("proxied"),
        settings,
        DARKROOM_AUTH__FAILURES_PER_MINUTE=str(FAILURES_PER_MINUTE),
    ) as started:
        yield started


@pytest.fixture(scope="module", params=["nginx", pytest.param("caddy", marks=pytest.mark.slow)])
def front(
    request: pytest.FixtureRequest, server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    with proxy(request.param, server, tmp_path_factory.mktemp(request.param)) as started:
        yield started


@pytest.fixture(scope="module")
def token(server: RunningServer) -> str:
    """The owner's."""
    with tokens_in(server.data_dir) as tokens:
        return tokens.create("owner", Scope.OWN)[1]


@pytest.fixture
def http(front: Front, token: str) -> Iterator[httpx2.Client]:
    with front.caller(token) as client:
        yield client


@pytest.fixture(scope="module")
def large() -> bytes:
    """A PNG of noise, 20 MB."""
    side = 2600
    picture = Image.frombytes("RGB", (side, side), Random(7).randbytes(3 * side * side))
    out = BytesIO()
    picture.save(out, "PNG", compress_level=0)
    return out.getvalue()


def ask(http: httpx2.Client, path: str, **fields: object) -> httpx2.Response:
    body = {"prompt": "a red fox", "seed": 7, "num_inference_steps": 2, **fields}
    return http.post(path, json=body)


def test_a_picture_comes_through(http: httpx2.Client) -> None:
    http.headers["accept"] = "image/png"

    with Image.open(BytesIO(ask(http, "/txt2img").content)) as picture:
        assert picture.size == (128, 128)


def test_an_upload_of_20_mb_comes_through(http: httpx2.Client, large: bytes) -> None:
    assert len(large) > 20_000_000

    answer = http.post(
        "/img2img",
        data={"prompt": "a pizza", "num_inference_steps": "2", "width": "64", "height": "64"},
        files={"image": ("large.png", large)},
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "succeeded"


def test_a_strangers_upload_is_refused_by_its_headers(front: Front, large: bytes) -> None:
    with front.caller() as stranger:
        answer = stranger.post("/img2img", data={"prompt": "x"}, files={"image": large})

    assert_refused(answer, 401, "token")


def test_events_come_while_they_happen(http: httpx2.Client) -> None:
    """The stream of all jobs never ends, so what a proxy kept back would never come."""
    with http.stream("GET", "/events") as stream:
        assert stream.status_code == 200
        events = parse_events(stream.iter_lines())
        http.headers["prefer"] = "respond-async"
        job = ask(http, "/txt2img", num_inference_steps=150, num_images=8).json()
        seen = []
        for event in events:
            seen.append(event["event"])
            if event["event"] == "progress":
                http.delete(f"/jobs/{job['id']}")
            if event["event"] == "cancelled":
                break

    assert seen[0] == "queued"
    assert "started" in seen


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-forwarded-for": "127.0.0.1"},
        {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "forwarded": "for=127.0.0.1"},
    ],
)
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_who_comes_through_is_never_this_machine(
    front: Front, address: str, headers: dict[str, str]
) -> None:
    with front.caller(at=address, **headers) as stranger:
        assert_refused(stranger.get("/models"), 401, "token")


def test_wrong_codes_are_counted_by_caller_whatever_they_make_up(front: Front) -> None:
    guesser, other = GUESSERS[front.kind]

    def guess(address: str, made_up: str) -> httpx2.Response:
        with front.caller(at=address, **{"x-forwarded-for": made_up}) as stranger:
            return stranger.post("/pair", json={"code": "AAAA-AAAA", "name": "x"})

    for number in range(FAILURES_PER_MINUTE):
        assert_refused(guess(guesser, f"203.0.113.{number}"), 403, "pairing-code")
    assert_refused(guess(guesser, "203.0.113.99"), 429, "too-many-failures")
    assert_refused(guess(other, "203.0.113.99"), 403, "pairing-code")


def test_signed_addresses_lead_through_the_proxy(front: Front, http: httpx2.Client) -> None:
    asked = {"prompt": "a red fox", "response_format": "url", "size": "128x128"}
    url = http.post("/v1/images/generations", json=asked).json()["data"][0]["url"]

    assert url.startswith(f"{front.address}/signed/")
    with front.caller() as stranger:
        assert stranger.get(url.removeprefix(front.address)).headers["content-type"] == "image/png"


def test_a_phone_is_invited_to_the_proxy_and_gets_a_cookie_for_tls(
    front: Front, http: httpx2.Client
) -> None:
    invitation = http.post("/pair/codes", json={"scope": "use"}).json()
    assert invitation["url"].startswith(f"{front.address}/#pair=")

    with front.caller(origin=front.address) as phone:
        paired = phone.post("/pair", json={"code": invitation["code"], "name": "phone"})
        assert "Secure" in paired.headers["set-cookie"]
        assert phone.get("/me").json()["name"] == paired.json()["name"]


def test_a_foreign_page_is_refused(front: Front) -> None:
    with front.caller(
        origin="https://evil.example", **{"x-forwarded-host": "evil.example"}
    ) as page:
        answer = page.post("/pair", json={"code": "AAAA-AAAA", "name": "x"})

    assert_refused(answer, 403, "door")


def test_without_tls_callers_are_sent_to_it(front: Front) -> None:
    answer = httpx2.get(
        f"http://127.0.0.1:{front.plain_port}/docs", headers={"host": NAME}, timeout=60
    )

    assert answer.status_code in (301, 308)
    assert answer.headers["location"].startswith(f"https://{NAME}")
    assert answer.headers["location"].endswith("/docs")


def test_browsers_are_told_to_stay_with_tls(front: Front) -> None:
    with front.caller() as stranger:
        answers = [stranger.get(path) for path in ("/", "/models")]

    for answer in answers:
        assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_the_examples_let_through_what_the_server_takes() -> None:
    limit = WebSettings().max_body_bytes

    assert f"client_max_body_size {limit // 2**20}m;" in (DEPLOY / "nginx.conf").read_text()
    assert f"max_size {limit}\n" in (DEPLOY / "Caddyfile").read_text()


def test_the_examples_give_connections_up_before_the_server_does() -> None:
    assert KEEP_ALIVE_S > 20
    assert "keepalive_timeout 20s;" in (DEPLOY / "nginx.conf").read_text()
    assert "keepalive 20s\n" in (DEPLOY / "Caddyfile").read_text()
