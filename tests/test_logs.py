"""Logs: a request can be followed from web into the worker, and nobody's words are in them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from darkroom.storage import database
from darkroom.storage.database import Database
from tests.serving import RunningServer
from tests.waiting import eventually

SECRET = "xylophone-4711"
FOLLOWED = "followed-through-the-house"


def lines(server: RunningServer) -> list[dict[str, Any]]:
    """What it has logged; the last line may not be there to its end."""
    whole, _, _ = server.log.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.split("\n") if line.startswith("{")]


def test_a_request_is_followed_from_web_to_worker(server: RunningServer) -> None:
    answer = server.http.post(
        f"/txt2img?note={SECRET}",
        json={"prompt": SECRET, "seed": 7, "num_inference_steps": 2},
        headers={
            "x-request-id": FOLLOWED,
            "authorization": f"Digest {SECRET}",
            "cookie": f"a={SECRET}",
        },
    )
    job = server.txt2img(prompt=SECRET).json()
    server.http.get("/healthz")
    server.http.get(f"/jobs/{job['id']}%0Aforged%20line")
    server.http.get(job["url"])

    def done() -> bool:
        return any(
            (line["event"], line.get("job_id")) == ("job succeeded", job["id"])
            for line in lines(server)
        )

    eventually(done)  # the worker says so when it has told web
    assert answer.headers["x-request-id"] == FOLLOWED  # whatever it was answered
    logged = lines(server)
    (asked,) = (
        line for line in logged if line.get("job_id") == job["id"] and line.get("method") == "POST"
    )
    of_job = [line for line in logged if line.get("request_id") == asked["request_id"]]
    assert [(line["process"], line["event"]) for line in of_job if line["process"] == "worker"] == [
        ("worker", "job claimed"),
        ("worker", "job succeeded"),
    ]
    assert {line["job_id"] for line in of_job} == {job["id"]}
    assert asked["event"] == "request"
    assert (asked["path"], asked["route"], asked["status"]) == ("/txt2img", "/txt2img", 200)
    assert asked["seconds"] > 0
    assert asked["client"] == "local"
    assert asked["level"] == "info"
    assert any(line.get("request_id") == FOLLOWED for line in logged)
    assert any(line.get("path") == job["url"] and line["job_id"] == job["id"] for line in logged)
    assert not any(line.get("path") in ("/healthz", "/readyz") for line in logged)
    assert SECRET not in server.log.read_text()


def python(code: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], text=True, check=False, **streams)


def test_what_strangers_choose_stays_on_one_line() -> None:
    code = """
import logging, structlog
from darkroom.ops import logs
logs.configure("console", "web")
structlog.get_logger().warning("request", path="/x\\n2026-01-01 [info] all is well\\x1b[2J")
logging.getLogger("a.library").error("said\\nthis")
"""
    result = python(code, stderr=subprocess.PIPE)

    assert len(result.stderr.splitlines()) == 2
    assert "\x1b[2J" not in result.stderr
    assert "a.library" in result.stderr


def test_libraries_speak_through_the_same_lines() -> None:
    code = """
import logging, warnings
from darkroom.ops import logs
logs.configure("json", "web")
logging.getLogger("a.library").error("it is %s", "late")
logging.getLogger("a.library").info("chatter")
warnings.warn("old")
"""
    result = python(code, stderr=subprocess.PIPE)

    said = [json.loads(line) for line in result.stderr.splitlines()]
    assert [(line["event"], line["level"]) for line in said[:1]] == [("it is late", "error")]
    assert said[0]["logger"] == "a.library"
    assert "old" in said[1]["event"]
    assert len(said) == 2


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_nobody_reading_is_no_reason_to_end(stream: str) -> None:
    code = """
import sys, structlog
from darkroom.ops import logs
logs.configure("console", "serve")
sys.stdin.read()
for _ in range(2000):
    structlog.get_logger().error("x" * 100)
    logs.print_line("y" * 100)
"""
    reading, writing = os.pipe()
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    streams[stream] = writing
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, **streams)
    os.close(writing)
    os.close(reading)
    child.communicate(timeout=60)

    assert child.returncode == 0


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    code = """
import structlog
from darkroom.ops import logs
logs.configure("console", "web")
for _ in range(2000):
    structlog.get_logger().error("x" * 100)
    logs.print_line("y" * 100)
"""
    with open("/dev/full", "w") as full:  # noqa: PTH123
        assert python(code, stdout=full, stderr=full).returncode == 0


def test_a_stream_that_was_closed_before_the_start_is_not_taken_by_another_file(
    tmp_path: Path,
) -> None:
    code = f"""
import os, structlog
from darkroom.ops import logs
logs.configure("console", "serve")
descriptor = os.open({str(tmp_path / "database")!r}, os.O_CREAT | os.O_RDWR)
structlog.get_logger().error("x")
raise SystemExit(descriptor > 2 and 7)
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    command = f"exec {sys.executable} {script} >&- 2>&-"

    assert subprocess.run(["bash", "-c", command], check=False).returncode == 7
    assert (tmp_path / "database").read_bytes() == b""


def test_errors_of_the_database_do_not_repeat_what_was_to_be_stored(tmp_path: Path) -> None:
    database.migrate(tmp_path / "darkroom.db")
    opened = Database(tmp_path / "darkroom.db")
    with pytest.raises(OperationalError) as caught, opened.write() as session:
        session.execute(text("INSERT INTO nowhere VALUES (:words)"), {"words": SECRET})

    assert SECRET not in str(caught.value)
    opened.close()
