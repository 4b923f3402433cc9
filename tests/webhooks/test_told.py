"""Whoever asked is told when the job has ended, by a message that proves where it is from."""

import io
import json
import sqlite3
from pathlib import Path

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from standardwebhooks import Webhook

from tests.api.test_bad_input import assert_problem
from tests.receiver import Told, answering
from tests.serving import RunningServer
from tests.waiting import eventually
from tests.webhooks.conftest import Listen, webhook


def verified(server: RunningServer, told: Told) -> dict[str, object]:
    """The message, as the specification's own library reads it."""
    secret = (server.data_dir / "webhooks.secret").read_text()
    message: dict[str, object] = Webhook(secret).verify(told.body, dict(told.headers))
    return message


def test_a_job_that_succeeded_is_told_of_as_it_is_shown(
    telling: RunningServer, listen: Listen
) -> None:
    receiver = listen()
    job = telling.submit(webhook=f"{receiver.url}/told/abc?of=it")
    told = receiver.next()
    webhook(telling, job["id"], "delivered")

    message = verified(telling, told)
    shown = telling.http.get(job["url"]).json()
    assert shown.pop("webhook") == {"state": "delivered", "attempts": 1, "last_error": None}
    assert message == {
        "type": "job.succeeded",
        "timestamp": shown["finished_at"],
        "data": shown,
    }
    assert told.path == "/told/abc?of=it"
    assert told.headers["content-type"] == "application/json"
    assert told.headers["webhook-id"] == f"msg_{job['id']}"


def test_a_cancelled_job_is_told_of(telling: RunningServer, listen: Listen) -> None:
    receiver = listen()
    job = telling.submit(num_inference_steps=150, webhook=f"{receiver.url}/told")
    telling.http.delete(job["url"])

    message = verified(telling, receiver.next())
    assert message["type"] == "job.cancelled"


@pytest.mark.slow
def test_it_may_be_asked_for_in_a_form_and_for_any_task(
    telling: RunningServer, listen: Listen, photo: Path, mask: Path
) -> None:
    receiver = listen()
    pictures = {"image": photo.read_bytes(), "mask_image": mask.read_bytes()}
    fields = {"prompt": "a pizza", "num_inference_steps": "2"}
    told = {"webhook": f"{receiver.url}/told"}
    for path, data, files in (
        ("/img2img", fields, ["image"]),
        ("/inpaint", fields, ["image", "mask_image"]),
        ("/upscale", {"upscaler": "tiny-x2"}, ["image"]),
    ):
        answer = telling.http.post(
            path, data={**data, **told}, files={name: pictures[name] for name in files}
        )
        assert answer.status_code == 200, answer.text
        message = verified(telling, receiver.next())
        assert message["data"]["task"] == path[1:]  # type: ignore[index]


def test_a_job_whose_picture_is_lost_is_told_of_as_failed(
    telling: RunningServer, listen: Listen
) -> None:
    receiver = listen()
    first = telling.txt2img().json()["images"][0]["id"]
    next((telling.data_dir / "images").rglob(first)).unlink()
    telling.http.post(
        "/img2img",
        json={"prompt": "x", "image": f"image:{first}", "webhook": f"{receiver.url}/told"},
        headers={"prefer": "respond-async"},
    )

    message = verified(telling, receiver.next())

    assert message["type"] == "job.failed"
    assert message["data"]["error"]["type"] == "urn:darkroom:problem:source"  # type: ignore[index]


def test_a_webhook_leaves_no_trace_where_others_look(
    telling: RunningServer, listen: Listen
) -> None:
    """It may be a secret, and is no part of how a picture is made."""
    receiver = listen()
    asked = {"prompt": "a red fox", "seed": 11, "num_inference_steps": 2, "exact": True}
    plain = telling.http.post("/txt2img", json=asked).json()
    told = telling.http.post(
        "/txt2img", json={**asked, "webhook": f"{receiver.url}/told/s3cret"}
    ).json()
    receiver.next()
    webhook(telling, told["id"], "delivered")

    first, second = (telling.http.get(job["images"][0]["url"]).content for job in (plain, told))
    assert first == second
    assert told["request"] == plain["request"]
    with Image.open(io.BytesIO(second)) as picture:
        assert "s3cret" not in json.dumps(picture.info)
    events = "".join(json.dumps(event) for event in telling.events(told["id"]))
    assert "s3cret" not in events + json.dumps(telling.http.get("/jobs").json())
    telling.wait_to_say(receiver.url)
    assert "s3cret" not in telling.log.read_text()
    with sqlite3.connect(telling.data_dir / "darkroom.db") as database:
        urls = database.execute("SELECT url FROM webhooks WHERE job_id = ?", (told["id"],))
        assert urls.fetchall() == [(None,)]  # there is nothing more to send
    database.close()


def test_a_key_that_is_used_again_tells_once(telling: RunningServer, listen: Listen) -> None:
    receiver = listen()
    asked = {"prompt": "a fox", "num_inference_steps": 2, "webhook": f"{receiver.url}/told"}
    headers = {"idempotency-key": "told once"}
    for _ in range(2):
        answer = telling.http.post("/txt2img", json=asked, headers=headers)
        assert answer.status_code == 200
    other = telling.http.post("/txt2img", json={**asked, "webhook": None}, headers=headers)
    receiver.next()
    webhook(telling, answer.json()["id"], "delivered")

    assert receiver.count() == 0
    assert other.status_code == 422  # it would not have told anybody


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/told", "http://evil.example/s3cret"])
def test_somebody_else_is_refused(telling: RunningServer, url: str) -> None:
    form = telling.http.post("/txt2img", files={"prompt": (None, "x"), "webhook": (None, url)})
    body = telling.http.post("/txt2img", json={"prompt": "x", "webhook": url, "scheduler": "none"})

    for answer in (form, body):
        assert "webhooks.allow" in assert_problem(answer, "#/webhook")
        assert url not in answer.text
    assert_problem(body, "#/scheduler")  # every wrong field is named at once


@pytest.mark.parametrize("value", [7, [], {}, "", "x" * 2001, "file:///etc/passwd"])
def test_what_is_no_address_is_refused(telling: RunningServer, value: object) -> None:
    answer = telling.http.post("/txt2img", json={"prompt": "x", "webhook": value})

    assert_problem(answer, "#/webhook")


def test_what_was_delivered_and_what_not_is_counted(telling: RunningServer, listen: Listen) -> None:
    receiver = listen(answering(503), answering(204), answering(410), at=1)
    before = metrics(telling)
    for state in ("delivered", "failed"):
        job = telling.submit(webhook=f"{receiver.url}/told")
        webhook(telling, job["id"], state)

    def grown() -> dict[str, float]:
        return {name: value - before[name] for name, value in metrics(telling).items()}

    eventually(lambda: grown()["given_up"], about=grown)  # it is counted after it is recorded
    after = grown()
    assert after.pop("delivered") >= 1  # one that was told before may be counted just now
    assert after == {"postponed": 1, "given_up": 1, "pending": 0}


def metrics(server: RunningServer) -> dict[str, float]:
    """Attempts by outcome, and how many webhooks are pending."""
    families = text_string_to_metric_families(server.http.get("/metrics").text)
    return {
        sample.labels.get("outcome", "pending"): sample.value
        for family in families
        for sample in family.samples
        if sample.name in ("darkroom_webhook_attempts_total", "darkroom_webhooks_pending")
    }
