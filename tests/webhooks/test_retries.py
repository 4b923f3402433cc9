"""A receiver that is away is told later; one that refuses is left alone."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.receiver import Answer, allowing, answering
from tests.serving import RunningServer, running
from tests.waiting import PATIENCE_S, eventually
from tests.webhooks.conftest import Listen, webhook

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("status", [503, 408, 429])
def test_what_may_pass_is_tried_again_with_the_same_id(
    telling: RunningServer, listen: Listen, status: int
) -> None:
    receiver = listen(answering(status))
    job = telling.submit(webhook=f"{receiver.url}/told")
    first, second = receiver.next(), receiver.next()

    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert webhook(telling, job["id"], "delivered") == {
        "state": "delivered",
        "attempts": 2,
        "last_error": None,
    }


@pytest.mark.parametrize("status", [401, 410, 302, 308])
def test_what_will_not_pass_is_not_tried_again(
    telling: RunningServer, listen: Listen, status: int
) -> None:
    elsewhere = listen(at=1)
    receiver = listen(answering(status, location=f"{elsewhere.url}/told"))
    job = telling.submit(webhook=f"{receiver.url}/told")

    found = webhook(telling, job["id"], "failed")

    assert found["attempts"] == 1
    assert found["last_error"].startswith(f"answered {status}")
    assert receiver.count() == 1
    assert elsewhere.count() == 0


def test_after_so_many_attempts_it_is_given_up(telling: RunningServer, listen: Listen) -> None:
    receiver = listen(*[answering(500)] * 5)
    job = telling.submit(webhook=f"{receiver.url}/told")

    found = webhook(telling, job["id"], "failed")

    assert found == {"state": "failed", "attempts": 3, "last_error": "answered 500"}
    assert receiver.count() == 3
    telling.wait_to_say("webhook given up")


def test_who_asks_for_time_is_given_it(telling: RunningServer, listen: Listen) -> None:
    receiver = listen(answering(429, retry_after="1"))
    telling.submit(webhook=f"{receiver.url}/told")
    first, second = receiver.next(), receiver.next()

    assert second.at_s - first.at_s > 0.9


def test_one_who_is_down_is_told_when_they_are_up(
    tmp_path: Path, listen: Listen, ports: list[int]
) -> None:
    patient = allowing(ports, DARKROOM_WEBHOOKS__MAX_ATTEMPTS="100")
    with running(tmp_path, process="web", **patient) as web:
        job = web.submit(webhook=f"http://127.0.0.1:{ports[2]}/told")
        web.http.delete(job["url"])
        eventually(lambda: webhook(web, job["id"], "pending")["last_error"])
        receiver = listen(at=2)

        assert receiver.next().headers["webhook-id"] == f"msg_{job['id']}"
        webhook(web, job["id"], "delivered")


def test_one_whose_name_leads_nowhere_is_given_up(telling: RunningServer) -> None:
    job = telling.submit(webhook="http://nowhere.invalid/told")

    found = webhook(telling, job["id"], "failed")

    assert found == {"state": "failed", "attempts": 3, "last_error": "cannot be reached"}


def hangs(until: threading.Event) -> Answer:
    """Says nothing for as long as one likes."""
    return lambda _: until.wait(PATIENCE_S)  # type: ignore[return-value]


def drips(until: threading.Event) -> Answer:
    """Says a little now and then, so that it is never silent for long."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        while not until.wait(0.1):
            handler.wfile.write(b"y")

    return answer


def floods(until: threading.Event) -> Answer:
    """Takes the message, and answers without end."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not until.is_set():
            handler.wfile.write(b"y" * 65536)

    return answer


@pytest.mark.parametrize("misbehaves", [hangs, drips])
def test_one_who_does_not_answer_holds_up_nobody_else(
    telling: RunningServer, listen: Listen, misbehaves: Callable[[threading.Event], Answer]
) -> None:
    enough = threading.Event()
    slow = listen(*[misbehaves(enough)] * 20, at=3)
    quick = listen(at=4)
    stuck = [telling.submit(webhook=f"{slow.url}/told", num_inference_steps=1) for _ in range(3)]
    slow.next()

    job = telling.submit(webhook=f"{quick.url}/told", num_inference_steps=1)
    quick.next()

    states = [telling.http.get(one["url"]).json()["webhook"]["state"] for one in stuck]
    enough.set()
    assert "pending" in states
    webhook(telling, job["id"], "delivered")
    for one in stuck:
        webhook(telling, one["id"], "delivered", "failed")


def test_one_who_drips_is_broken_off(telling: RunningServer, listen: Listen) -> None:
    enough = threading.Event()
    slow = listen(*[drips(enough)] * 3, at=7)
    job = telling.submit(webhook=f"{slow.url}/told")

    found = webhook(telling, job["id"], "failed")

    enough.set()
    assert found["last_error"] == "did not answer within 3 s"


def test_an_answer_without_end_is_not_read(telling: RunningServer, listen: Listen) -> None:
    enough = threading.Event()
    receiver = listen(floods(enough), at=5)
    job = telling.submit(webhook=f"{receiver.url}/told")

    assert webhook(telling, job["id"], "delivered")["attempts"] == 1
    enough.set()


def test_what_is_not_http_is_tried_again(telling: RunningServer, listen: Listen) -> None:
    def greets(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")

    receiver = listen(greets, at=6)
    job = telling.submit(webhook=f"{receiver.url}/told")

    receiver.next()
    receiver.next()
    webhook(telling, job["id"], "delivered")
