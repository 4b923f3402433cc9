"""What goes wrong between a client and a server, and what is tried before it is an error."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from darkroom.ops.puller import PLAN_S
from darkroom_client import (
    APIError,
    Client,
    ConflictError,
    ConnectionFailedError,
    DarkroomError,
    Effects,
    FieldError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    UnexpectedResponseError,
)
from darkroom_client.core import call
from tests.sdk.scripted import Reply, ScriptedServer, json_reply, problem
from tests.serving import RunningServer, free_port

Scripted = Callable[..., ScriptedServer]
HEALTH = json_reply({"status": "ok", "version": "1"})


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, PermissionDeniedError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, InvalidRequestError),
        (415, InvalidRequestError),
        (422, InvalidRequestError),
        (429, RateLimitedError),
        (500, ServerError),
        (507, ServerError),
    ],
)
def test_a_problem_becomes_the_error_of_its_status(
    scripted: Scripted, status: int, kind: type[APIError]
) -> None:
    with (
        Client(scripted(problem(status)).url, max_retries=0) as client,
        pytest.raises(DarkroomError) as caught,
    ):
        client.models()
    error = caught.value
    assert type(error) is kind
    assert isinstance(error, APIError)
    assert (error.status, error.title, error.detail) == (status, "A title", "a detail")
    assert error.type == "urn:darkroom:problem:test"
    assert error.errors == (FieldError("#/width", "is odd"),)
    assert error.request_id == "abc123"
    assert str(error) == f"{status} A title: a detail (request abc123)"


def test_a_wrong_field_is_pointed_at(idle_client: Client) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        idle_client.txt2img("a fox", width=12, num_images=9)
    assert {error.pointer for error in caught.value.errors} == {"#/width", "#/num_images"}


def test_a_field_that_does_not_exist_is_a_type_error(idle_client: Client) -> None:
    with pytest.raises(TypeError, match="steps"):
        idle_client.txt2img("a fox", steps=3)  # type: ignore[call-arg]


def test_a_busy_server_is_asked_again_when_it_says(scripted: Scripted) -> None:
    slept: list[float] = []
    dated = {
        "Date": "Mon, 05 Jan 2026 10:00:00 GMT",
        "Retry-After": "Mon, 05 Jan 2026 10:00:07 GMT",
    }
    server = scripted(problem(503, **{"Retry-After": "3"}), Reply(429, b"", dated), HEALTH)
    with Client(server.url, effects=Effects(sleep=slept.append)) as client:
        assert client.health().version == "1"
    assert slept == [3, 7]


def test_pauses_grow_and_the_key_stays(scripted: Scripted) -> None:
    slept: list[float] = []
    server = scripted(problem(429))
    effects = Effects(sleep=slept.append, chance=lambda: 1.0)
    with (
        Client(server.url, max_retries=6, effects=effects) as client,
        pytest.raises(RateLimitedError),
    ):
        client.txt2img("a fox")
    assert slept == [0.5, 1, 2, 4, 8, 8]
    assert len(server.received) == 7
    assert len({request.headers["Idempotency-Key"] for request in server.received}) == 1
    assert {request.headers["Prefer"] for request in server.received} == {"respond-async"}


def test_every_job_has_a_key_of_its_own(scripted: Scripted) -> None:
    server = scripted(problem(500))
    with Client(server.url) as client:
        for _ in range(2):
            with pytest.raises(ServerError):
                client.txt2img("a fox")
    first, second = (request.headers["Idempotency-Key"] for request in server.received)
    assert first != second


def test_nobody_waits_for_an_hour(scripted: Scripted) -> None:
    slept: list[float] = []
    server = scripted(problem(429, **{"Retry-After": "3600"}))
    with (
        Client(server.url, effects=Effects(sleep=slept.append)) as client,
        pytest.raises(RateLimitedError) as caught,
    ):
        client.txt2img("a fox")
    assert caught.value.retry_after_s == 3600
    assert slept == []


@pytest.mark.parametrize("status", [400, 404, 500, 507])
def test_other_refusals_are_final(scripted: Scripted, status: int) -> None:
    server = scripted(problem(status))
    with Client(server.url) as client, pytest.raises(APIError):
        client.models()
    assert len(server.received) == 1


def test_no_server_is_an_error_after_retries() -> None:
    slept: list[float] = []
    with (
        Client(f"http://127.0.0.1:{free_port()}", effects=Effects(sleep=slept.append)) as client,
        pytest.raises(ConnectionFailedError),
    ):
        client.health()
    assert len(slept) == 2


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>another program</html>", {"Content-Type": "text/html"}),
        json_reply({"name": "another program"}),
        json_reply([1, 2]),
        json_reply({"models": [{"name": "half"}]}),
        Reply(404, b"[]", {"Content-Type": "application/problem+json"}),
    ],
)
def test_another_program_is_recognised(scripted: Scripted, reply: Reply) -> None:
    with Client(scripted(reply).url) as client, pytest.raises(UnexpectedResponseError):
        client.models()


def test_a_proxys_error_page_is_an_api_error(scripted: Scripted) -> None:
    reply = Reply(502, b"<html>", {"Content-Type": "text/html", "X-Request-Id": "xyz"})
    with Client(scripted(reply).url) as client, pytest.raises(ServerError) as caught:
        client.models()
    assert (caught.value.title, caught.value.request_id) == ("Bad Gateway", "xyz")


def test_the_token_is_sent(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    server = scripted(HEALTH)
    monkeypatch.setenv("DARKROOM_URL", server.url + "/")
    with Client() as client:
        client.health()
    with Client(token="abc") as client:
        client.health()
    monkeypatch.setenv("DARKROOM_TOKEN", "def")
    with Client() as client:
        client.health()
    sent = [request.headers.get("Authorization") for request in server.received]
    assert sent == [None, "Bearer abc", "Bearer def"]


@pytest.mark.parametrize("url", ["localhost:7860", "ftp://box", "http://", "http://a b:x"])
def test_a_wrong_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        Client(url)


def test_what_there_is(client: Client) -> None:
    model = next(model for model in client.models() if model.default)
    assert model.defaults.width <= model.limits.max_side
    assert "ddim" in [scheduler.name for scheduler in client.schedulers()]
    assert client.health().status == "ok"
    assert client.ready()


def test_a_server_without_worker_is_not_ready(idle_server: RunningServer) -> None:
    slept: list[float] = []
    with Client(idle_server.url, effects=Effects(sleep=slept.append)) as client:
        assert not client.ready()
    assert slept == []


def test_a_plan_is_waited_for_as_long_as_the_server_may_take(scripted: Scripted) -> None:
    """It asks a hub meanwhile. Other answers are given up earlier."""
    assert call.pull("studio/fox", None, None, None, dry_run=True).patience_s > PLAN_S
    enough = threading.Event()
    server = scripted(replace(problem(502, "hub-slow"), after=enough))

    with Client(server.url, timeout_s=0.05, max_retries=0) as client:
        with pytest.raises(ConnectionFailedError):
            client.models()
        threading.Timer(0.2, enough.set).start()
        with pytest.raises(ServerError, match="a detail"):
            client.plan_pull("studio/fox")


def test_a_deletion_whose_answer_was_lost_is_done(scripted: Scripted) -> None:
    """The second try finds nothing there any more."""
    never = threading.Event()
    server = scripted(replace(problem(500), after=never), problem(404))

    with Client(server.url, timeout_s=0.2) as client:
        client.delete_model("fox")
        with pytest.raises(NotFoundError):
            client.delete_model("fox")
    never.set()
