"""Web dies or is stopped at any moment, and who is to be told is told."""

import sqlite3
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import psutil
import pytest
from standardwebhooks import Webhook

from darkroom.queue.leases import Leases
from darkroom.responses import JobStatus
from darkroom.storage.database import Database
from tests.receiver import Receiver, allowing, answering
from tests.serving import RunningServer, running
from tests.waiting import PATIENCE_S, eventually
from tests.webhooks.conftest import Listen, webhook
from tests.webhooks.test_retries import hangs

pytestmark = pytest.mark.slow

# By which a claim lapses within eight seconds.
SHORT = {"DARKROOM_WEBHOOKS__TIMEOUT_S": "2", "DARKROOM_QUEUE__DATABASE_TIMEOUT_S": "0.5"}


def test_web_is_killed_while_it_tells_and_a_job_ends_meanwhile(
    tmp_path: Path, ports: list[int], listen: Listen
) -> None:
    """What was on its way is sent again when its claim has lapsed; the other one at once."""
    enough = threading.Event()
    receiver = listen(hangs(enough))
    with running(tmp_path, process="web", **allowing(ports, **SHORT)) as web:
        left = web.submit(webhook=f"{receiver.url}/told")["id"]
        interrupted = cancelled(web, receiver)
        first = receiver.next()
        for process in (*psutil.Process(web.process.pid).children(), web.process):
            process.kill()
    enough.set()
    finish(tmp_path, left)

    with running(tmp_path, process="web", **allowing(ports, **SHORT)) as web:
        told = [receiver.next() for _ in range(2)]
        assert webhook(web, left, "delivered")["attempts"] == 1
        assert webhook(web, interrupted, "delivered")["attempts"] == 2
    secret = Webhook((tmp_path / "webhooks.secret").read_text())
    kinds = [secret.verify(one.body, dict(one.headers))["type"] for one in (first, *told)]
    assert kinds == ["job.cancelled", "job.succeeded", "job.cancelled"]
    assert first.headers["webhook-id"] == told[1].headers["webhook-id"]


def finish(folder: Path, job_id: str) -> None:
    """As a worker does, while there is no web."""
    database = Database(folder / "darkroom.db")
    worker = Leases(database, "w", lease_s=30, max_attempts=3)
    assert worker.claim(busy=False)
    worker.finish(job_id, JobStatus.SUCCEEDED)
    database.close()


def test_a_stop_does_not_wait_for_who_is_slow(
    tmp_path: Path, ports: list[int], listen: Listen
) -> None:
    """And what was broken off is sent at once by the next start, not counted as an attempt."""
    enough = threading.Event()
    receiver = listen(hangs(enough))
    patient = allowing(ports, DARKROOM_WEBHOOKS__TIMEOUT_S="300")
    with running(tmp_path, process="web", **patient) as web:
        job = cancelled(web, receiver)
        receiver.next()
        web.process.terminate()
        assert web.process.wait(PATIENCE_S) == 0  # which is less than the receiver may take
    enough.set()

    assert due(tmp_path) == [("pending", None)]
    with running(tmp_path, process="web", **patient) as web:
        receiver.next()
        assert webhook(web, job, "delivered")["attempts"] == 1


def test_two_web_processes_tell_once(tmp_path: Path, ports: list[int], listen: Listen) -> None:
    """Both look for deliveries at the same moments, for both hear of each end."""
    receiver = listen()
    with (
        running(tmp_path, process="web", **allowing(ports)) as one,
        running(tmp_path, process="web", **allowing(ports)) as other,
    ):
        jobs = [cancelled(server, receiver) for server in (one, other) * 10]
        for job in jobs:
            assert webhook(one, job, "delivered")["attempts"] == 1

    ids = [receiver.next().headers["webhook-id"] for _ in jobs]
    assert sorted(ids) == sorted(f"msg_{job}" for job in jobs)
    assert receiver.count() == 0


def test_a_secret_that_is_damaged_is_said_and_can_be_put_back(
    tmp_path: Path, ports: list[int], listen: Listen
) -> None:
    receiver = listen()
    path = tmp_path / "webhooks.secret"
    path.write_text("short")
    patient = allowing(ports, DARKROOM_WEBHOOKS__MAX_ATTEMPTS="100")
    with running(tmp_path, process="web", **patient) as web:
        job = cancelled(web, receiver)
        web.wait_to_say("is damaged")
        assert "secret" in eventually(lambda: webhook(web, job, "pending")["last_error"])
        path.unlink()
        receiver.next()
        webhook(web, job, "delivered")


def test_what_cannot_be_written_down_yet_is_not_sent_again(
    tmp_path: Path, ports: list[int], listen: Listen
) -> None:
    """The receiver has taken it, and then nobody may write: another program has the database."""
    locked = threading.Event()

    def takes(handler: BaseHTTPRequestHandler) -> None:
        locked.wait(PATIENCE_S)
        answering(204)(handler)

    receiver = listen(takes)
    quick = {**SHORT, "DARKROOM_WEBHOOKS__TIMEOUT_S": "60"}
    with running(tmp_path, process="web", **allowing(ports, **quick)) as web:
        job = cancelled(web, receiver)
        receiver.next()
        other = sqlite3.connect(tmp_path / "darkroom.db", isolation_level=None, timeout=60)
        other.execute("BEGIN IMMEDIATE")
        locked.set()
        web.wait_to_say("a webhook's result cannot be written yet")
        other.execute("ROLLBACK")
        other.close()

        assert webhook(web, job, "delivered")["attempts"] == 1
    assert receiver.count() == 0


def test_what_is_no_longer_allowed_is_not_told(
    tmp_path: Path, ports: list[int], listen: Listen
) -> None:
    receiver = listen(answering(500))
    with running(
        tmp_path, process="web", **allowing(ports, DARKROOM_WEBHOOKS__RETRY_S="15")
    ) as web:
        job = cancelled(web, receiver)
        receiver.next()

    with running(tmp_path, process="web") as web:
        assert "webhooks.allow" in webhook(web, job, "failed")["last_error"]
    assert receiver.count() == 0


def cancelled(web: RunningServer, receiver: Receiver) -> str:
    """A job that ended without a worker; its id."""
    job = web.submit(webhook=f"{receiver.url}/told")
    web.http.delete(job["url"])
    name: str = job["id"]
    return name


def due(folder: Path) -> list[tuple[str, str | None]]:
    """State and sender of each delivery, read beside the server."""
    with sqlite3.connect(folder / "darkroom.db") as database:
        found = database.execute("SELECT state, sender FROM webhooks").fetchall()
    database.close()
    return found
