"""The API document is true: the server is asked everything that it allows, and much that not."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from darkroom.requests import Scope
from tests.effort import amount
from tests.security.doors import tokens_in
from tests.security.unlimited import UNLIMITED
from tests.serving import RunningServer, running

EXAMPLES = amount(10, 12, 300)
DEEP = "examples,coverage,fuzzing,stateful"
HERE = Path(__file__).parent
NOBODY = "http://127.0.0.1:9"  # listens there


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("phases", ["examples", pytest.param(DEEP, marks=pytest.mark.slow)])
def test_every_answer_to_every_request_is_as_documented(tmp_path: Path, phases: str) -> None:
    """All of Schemathesis' checks: daily on examples, else to chains of requests along the links.

    On a server whose queue nobody works on, where no job costs anything. Event streams do not
    end there; what they and finished jobs answer is looked at below. A token must not be revoked,
    for it might be the one that this comes with.
    """
    closed = {"DARKROOM_AUTH__TRUST_LOOPBACK": "false", **UNLIMITED}
    closed |= {"HF_ENDPOINT": NOBODY, "DARKROOM_MODELS__CIVITAI_URL": NOBODY}
    with running(tmp_path / "box", process="web", **closed) as server:
        with tokens_in(server.data_dir) as tokens:
            _, secret = tokens.create("schemathesis", Scope.OWN)
        command = [
            *(
                sys.executable,
                "-m",
                "schemathesis.cli",
                "--config-file",
                HERE / "schemathesis.toml",
            ),
            *("run", f"{server.url}/openapi.json"),
            *("--phases", phases, "--continue-on-failure"),
            *("--max-examples", str(EXAMPLES), "--seed", "1", "--suppress-health-check", "all"),
            *("--header", f"Authorization: Bearer {secret}"),
            *("--header", "Prefer: respond-async", "--exclude-path-regex", "events$|^/tokens/"),
            *("--generation-database", "none", "--no-color"),
        ]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert found.returncode == 0, found.stdout + found.stderr
    assert "Traceback" not in server.log.read_text()


# --- what takes a worker -------------------------------------------------------------------


@pytest.fixture(scope="module")
def document(server: RunningServer) -> dict[str, Any]:
    written: dict[str, Any] = server.http.get("/openapi.json").json()
    return written


def assert_documented(document: dict[str, Any], answer: httpx2.Response, path: str) -> None:
    """The answer's status, content type and headers are among those of its operation."""
    operation = document["paths"][path][answer.request.method.lower()]
    said = operation["responses"][str(answer.status_code)]
    if "$ref" in said:
        said = document["components"]["responses"][said["$ref"].rpartition("/")[2]]
    for name, header in said["headers"].items():
        assert name in answer.headers or not header.get("required"), name
    content_type = answer.headers.get("content-type", "").partition(";")[0]
    if content_type and answer.status_code not in (204, 304):
        assert content_type in said["content"]


@pytest.fixture(scope="module")
def job(server: RunningServer) -> dict[str, Any]:
    """A finished one."""
    made: dict[str, Any] = server.txt2img().json()
    return made


GETS = [
    ("/jobs/{job_id}", {}, 200),
    ("/jobs/{job_id}/events", {}, 200),
    ("/jobs/{job_id}/events", {"last-event-id": "999999999"}, 204),
    ("/jobs/{job_id}/events", {"last-event-id": "yesterday"}, 400),
    ("/jobs/{job_id}/timeline", {}, 200),
    ("/images/{image_id}", {}, 200),
    ("/images/{image_id}", {"accept": "image/webp"}, 200),
    ("/images/{image_id}", {"accept": "image/jpeg"}, 200),
    ("/images/{image_id}", {"accept": "image/svg+xml"}, 406),
]


@pytest.mark.parametrize(("path", "headers", "status"), GETS)
def test_what_comes_of_a_job_is_documented(
    server: RunningServer,
    document: dict[str, Any],
    job: dict[str, Any],
    path: str,
    headers: dict[str, str],
    status: int,
) -> None:
    address = path.format(job_id=job["id"], image_id=job["images"][0]["id"])
    answer = server.http.get(address, headers=headers)

    assert answer.status_code == status
    assert_documented(document, answer, path)


@pytest.mark.parametrize("path", ["/images/{image_id}", "/jobs/{job_id}/timeline"])
def test_an_answer_without_news_is_documented(
    server: RunningServer, document: dict[str, Any], job: dict[str, Any], path: str
) -> None:
    address = path.format(job_id=job["id"], image_id=job["images"][0]["id"])
    etag = server.http.get(address).headers["etag"]
    answer = server.http.get(address, headers={"if-none-match": etag})

    assert answer.status_code == 304
    assert_documented(document, answer, path)


@pytest.mark.parametrize("accept", ["application/json", "image/png", "image/jpeg", "image/webp"])
def test_what_a_waiting_caller_gets_is_documented(
    server: RunningServer, document: dict[str, Any], accept: str
) -> None:
    body = {"prompt": "a red fox", "num_inference_steps": 1}
    answer = server.http.post("/txt2img", json=body, headers={"accept": accept})

    assert answer.status_code == 200
    assert answer.headers["content-type"] == accept
    assert_documented(document, answer, "/txt2img")


def test_the_stream_of_all_events_is_documented(
    server: RunningServer, document: dict[str, Any]
) -> None:
    with server.http.stream("GET", "/events") as answer:
        assert answer.status_code == 200
        assert_documented(document, answer, "/events")


def test_every_address_of_a_job_or_picture_fits_its_pattern(
    document: dict[str, Any], job: dict[str, Any]
) -> None:
    """Programs generated from the document check what they send."""
    for path, value in (
        ("/jobs/{job_id}", job["id"]),
        ("/images/{image_id}", job["images"][0]["id"]),
    ):
        (parameter,) = (
            found for found in document["paths"][path]["get"]["parameters"] if found["in"] == "path"
        )
        assert re.search(parameter["schema"]["pattern"], value)


def test_every_link_leads_to_an_operation(document: dict[str, Any]) -> None:
    operations = [op for methods in document["paths"].values() for op in methods.values()]
    names = {operation["operationId"] for operation in operations}

    assert len(names) == len(operations)
    assert set(linked(operations)) <= names
    assert set(linked(operations)) >= {"show_job", "cancel_job", "job_events", "show_image"}


def linked(operations: list[dict[str, Any]]) -> Iterator[str]:
    for operation in operations:
        for answer in operation["responses"].values():
            for link in answer.get("links", {}).values():
                yield link["operationId"]
