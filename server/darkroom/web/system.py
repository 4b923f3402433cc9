"""Health, metrics, the API document and pages for people."""

from collections.abc import Iterator
from importlib.resources import as_file, files

from flask import Blueprint, Response, jsonify, render_template, send_from_directory
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import darkroom
from darkroom.jobs.store import Store
from darkroom.schemas import JobStatus
from darkroom.web.context import context
from darkroom.web.errors import ProblemError
from darkroom.web.openapi import document

blueprint = Blueprint("system", __name__, template_folder="templates")


class QueueCollector(Collector):
    """Reads the queue's numbers when Prometheus asks."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        jobs = GaugeMetricFamily("darkroom_jobs", "Jobs by status.", labels=["status"])
        counts = self._store.counts()
        for status in JobStatus:
            jobs.add_metric([status.value], counts.get(status.value, 0))
        yield jobs
        ready = sum(1 for _, is_ready, _ in self._store.workers() if is_ready)
        yield GaugeMetricFamily("darkroom_workers_ready", "Workers with a loaded model.", ready)
        free = context().files.free_bytes()
        yield GaugeMetricFamily("darkroom_disk_free_bytes", "Space left for pictures.", free)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Whether this process answers. Says nothing of the worker."""
    return jsonify(status="ok", version=darkroom.__version__)


@blueprint.get("/readyz")
def readyz() -> Response:
    """Whether a worker has its model loaded."""
    workers = context().store.workers()
    if not any(ready for _, ready, _ in workers):
        state = "is loading its model" if workers else "has not started yet"
        raise ProblemError(
            503,
            "not-ready",
            "Not ready",
            f"the worker {state}; jobs are accepted and will be done then",
            headers={"Retry-After": "2"},
        )
    return jsonify(
        status="ready",
        workers=[{"id": name, "ready": ready, "device": device} for name, ready, device in workers],
    )


@blueprint.get("/metrics")
def metrics() -> Response:
    """For Prometheus."""
    registry = CollectorRegistry()
    registry.register(QueueCollector(context().store))
    return Response(generate_latest(registry), content_type="text/plain; version=0.0.4")


@blueprint.get("/openapi.json")
def openapi_document() -> Response:
    """This API, in OpenAPI 3.1."""
    return jsonify(document.write())


@blueprint.get("/docs")
def docs() -> str:
    """The API to read and to try."""
    return render_template("docs.html")


@blueprint.get("/docs/<any('swagger-ui.css', 'swagger-ui-bundle.js'):name>")
def docs_file(name: str) -> Response:
    """Swagger UI's own files: the page works without the internet."""
    with as_file(files("swagger_ui") / "static") as folder:
        return send_from_directory(folder, name, max_age=86400)


@blueprint.get("/")
def home() -> str:
    """What this is."""
    return render_template("home.html", version=darkroom.__version__)
