"""Jobs are sent while worker and web are killed at random moments. All of them are done, once."""

import hashlib
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.effort import SOAK, amount
from tests.serving import RunningServer, running

JOBS = amount(40, 60, 500)
WORKER_KILLS = amount(6, 8, 100)
WEB_KILLS = amount(2, 2, 20)
KINDS = 10  # of requests; each is made undisturbed first
CHANCE = random.Random(4)

ENVIRONMENT = {
    "DARKROOM_QUEUE__MAX_PENDING": "2000",
    "DARKROOM_QUEUE__MAX_PENDING_PER_CLIENT": "2000",
    "DARKROOM_QUEUE__MAX_ATTEMPTS": "10",  # kills are ours, not the jobs' doing
    "DARKROOM_AUTH__REQUESTS_PER_MINUTE": "1000000",
}


def body(kind: int) -> dict[str, Any]:
    """Tiny jobs of different lengths, some of two pictures."""
    return {
        "prompt": "a red fox",
        "seed": 100 * kind,
        "num_inference_steps": 2 + kind % 4,
        "num_images": 1 + kind % 2,
        "exact": True,
    }


def accepted(server: RunningServer, kind: int, key: str) -> str:
    """Ask until the server says that it has accepted, as a client with a key may; the job's id."""
    with httpx2.Client(base_url=server.url, timeout=60) as http:
        while True:
            with suppress(httpx2.TransportError):
                answer = http.post(
                    "/txt2img",
                    json=body(kind),
                    headers={"prefer": "respond-async", "idempotency-key": key},
                )
                if answer.status_code in (200, 202):
                    return str(answer.json()["id"])
                assert answer.status_code == 503, answer.text
            time.sleep(0.05)  # a server that is starting; it is asked again until it answers


def kill(server: RunningServer, name: str) -> bool:
    with suppress(LookupError, psutil.NoSuchProcess):
        server.child(name).send_signal(signal.SIGKILL)
        return True
    return False


def disturb(server: RunningServer, done: threading.Event) -> Counter[str]:
    """Kill worker and web at random moments until both have died often enough, or all is done."""
    plan = ["worker"] * WORKER_KILLS + ["web"] * WEB_KILLS
    CHANCE.shuffle(plan)
    killed: Counter[str] = Counter()
    for name in plan:
        # Of a worker that has begun to work, or of one that is still starting.
        if name == "worker" and CHANCE.random() < 0.8:
            wait_for_a_running_job(server, done)
        if done.wait(CHANCE.uniform(0, 1.5)):
            break
        while not kill(server, name):
            if done.wait(0.05):
                return killed
        killed[name] += 1
    return killed


def wait_for_a_running_job(server: RunningServer, done: threading.Event) -> None:
    with sqlite3.connect(server.data_dir / "darkroom.db", timeout=30) as database:
        running_jobs = "SELECT count(*) FROM jobs WHERE status = 'running' AND step > 0"
        while not database.execute(running_jobs).fetchone()[0] and not done.wait(0.01):
            pass
    database.close()


def digests(server: RunningServer, job: dict[str, Any]) -> list[str]:
    return [
        hashlib.sha256(server.http.get(image["url"]).content).hexdigest() for image in job["images"]
    ]


@pytest.mark.slow
@pytest.mark.timeout(amount(600, 900, 7200))
def test_every_accepted_job_is_done_once_whatever_dies(tmp_path: Path) -> None:
    with running(tmp_path, **ENVIRONMENT) as server:
        undisturbed = [
            digests(server, server.finished(server.submit(**body(kind))["id"]))
            for kind in range(KINDS)
        ]
        with ThreadPoolExecutor(5) as pool:
            done = threading.Event()
            trouble = pool.submit(disturb, server, done)
            ids = list(pool.map(lambda n: accepted(server, n % KINDS, f"key-{n}"), range(JOBS)))
            if SOAK:
                trouble.result()  # kills go on until there were as many as promised
            jobs = [ended(server, job_id) for job_id in ids]
            done.set()
            killed = trouble.result()

        assert len(set(ids)) == JOBS
        assert Counter(job["status"] for job in jobs) == {"succeeded": JOBS}
        server.wait_until_ready()
        for number, job in enumerate(jobs):
            assert digests(server, job) == undisturbed[number % KINDS], job["id"]
        print(f"{JOBS} jobs, killed: {dict(killed)}")

    check_database(tmp_path, JOBS + KINDS)


def ended(server: RunningServer, job_id: str) -> dict[str, Any]:
    """The job at its end, asked for as often as it takes."""
    while True:
        with suppress(httpx2.TransportError):
            answer = server.http.get(f"/jobs/{job_id}")
            if answer.status_code == 200:
                job: dict[str, Any] = answer.json()
                if job["status"] in ("succeeded", "failed", "cancelled"):
                    return job
            else:
                assert answer.status_code == 503, answer.text
        time.sleep(0.1)


def check_database(data_dir: Path, jobs: int) -> None:
    """One end for each job, one file for each picture, and nothing else."""
    database = sqlite3.connect(data_dir / "darkroom.db")
    ends = database.execute(
        "SELECT job_id, count(*) FROM events"
        " WHERE type IN ('succeeded', 'failed', 'cancelled') GROUP BY job_id"
    ).fetchall()
    pictures = {row[0] for row in database.execute("SELECT id FROM images")}
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert database.execute("SELECT count(*) FROM jobs").fetchone() == (jobs,)
    database.close()
    assert len(ends) == jobs
    assert {number for _, number in ends} == {1}
    files = {path.name for path in (data_dir / "images").rglob("*") if path.is_file()}
    assert {name for name in files if not name.endswith(".tmp")} == pictures
