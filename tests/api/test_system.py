"""Health, metrics and documentation pages."""

import re

from darkroom.catalog import schedulers
from darkroom.responses import EventType
from tests.serving import RunningServer


def test_web_is_healthy_without_a_worker_but_not_ready(idle_server: RunningServer) -> None:
    ready = idle_server.http.get("/readyz")

    assert idle_server.http.get("/healthz").json()["status"] == "ok"
    assert ready.status_code == 503
    assert "retry-after" in ready.headers


def test_a_server_with_a_loaded_model_is_ready(server: RunningServer) -> None:
    answer = server.http.get("/readyz").json()

    assert answer["status"] == "ready"
    assert [worker["ready"] for worker in answer["workers"]] == [True]


def test_models_tell_their_defaults_and_limits(server: RunningServer) -> None:
    (tintype,) = server.http.get("/models").json()["models"]

    assert tintype["name"] == "tintype"
    assert tintype["default"]
    assert (tintype["defaults"]["width"], tintype["defaults"]["height"]) == (128, 128)
    assert tintype["limits"]["multiple_of"] == 8


def test_every_listed_scheduler_is_accepted(idle_server: RunningServer) -> None:
    listed = idle_server.http.get("/schedulers").json()["schedulers"]
    names = [name for entry in listed for name in (entry["name"], *entry["variants"])]

    assert names == schedulers.full_names()
    for name in names:
        idle_server.submit(scheduler=name)


def test_the_api_document_describes_every_route(server: RunningServer) -> None:
    document = server.http.get("/openapi.json").json()

    assert document["openapi"].startswith("3.1")
    for path in (
        "/txt2img",
        "/img2img",
        "/inpaint",
        "/jobs",
        "/jobs/{job_id}",
        "/jobs/{job_id}/timeline",
        "/images/{image_id}",
    ):
        assert path in document["paths"]
    content = document["paths"]["/inpaint"]["post"]["requestBody"]["content"]
    assert content.keys() == {"application/json", "multipart/form-data"}


def test_the_api_document_names_every_event(server: RunningServer) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    described = paths["/jobs/{job_id}/events"]["get"]["description"]

    assert set(re.findall(r"`(\w+)`", described)) >= {kind.value for kind in EventType}


def test_the_docs_page_needs_no_internet(server: RunningServer) -> None:
    page = server.http.get("/docs").text

    assert "http" not in page.replace("http-equiv", "")
    for path in ("/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/static/docs.js"):
        assert path in page
        assert server.http.get(path).status_code == 200


def test_metrics_count_jobs(server: RunningServer) -> None:
    server.txt2img()
    lines = server.http.get("/metrics").text.splitlines()

    assert "darkroom_workers_ready 1.0" in lines
    assert any(line.startswith('darkroom_jobs{status="succeeded"} ') for line in lines)


def test_every_answer_carries_a_request_id(server: RunningServer) -> None:
    given = server.http.get("/healthz", headers={"x-request-id": "from-the-caller-1"})
    forged = server.http.get("/healthz", headers={"x-request-id": "<script>"})

    assert given.headers["x-request-id"] == "from-the-caller-1"
    assert "<" not in forged.headers["x-request-id"]
