"""Health, metrics, and the API document."""

from importlib.resources import as_file, files

from flask import Blueprint, Response, current_app, jsonify, render_template, send_from_directory
from prometheus_client import CollectorRegistry, Gauge, generate_latest

import darkroom
from darkroom.api import openapi
from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError

blueprint = Blueprint("system", __name__)


@blueprint.get("/healthz")
@access.open_to_all
def healthz() -> Response:
    """Whether the web process answers; nothing about the worker."""
    return jsonify(status="ok", version=darkroom.__version__)


@blueprint.get("/readyz")
@access.open_to_all
def readyz() -> Response:
    """Whether a worker has its model loaded. Only authenticated callers see which."""
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
    if access.known_caller() is None:
        return jsonify(status="ready")
    return jsonify(
        status="ready",
        workers=[{"id": name, "ready": ready, "device": device} for name, ready, device in workers],
    )


@blueprint.get("/metrics")
def metrics() -> Response:
    """Metrics for Prometheus."""
    here = context()
    registry = CollectorRegistry()
    registry.register(here.queue_metrics)
    free = Gauge("darkroom_disk_free_bytes", "Space left for pictures.", registry=registry)
    free.set(here.files.free_bytes())
    least = Gauge(
        "darkroom_disk_min_free_bytes", "With less space nothing is accepted.", registry=registry
    )
    least.set(here.settings.queue.min_free_bytes)
    text = generate_latest(registry) + generate_latest(here.meters.registry)
    return Response(text, content_type="text/plain; version=0.0.4")


@blueprint.get("/openapi.json")
def openapi_document() -> Response:
    """The API document, OpenAPI 3.1."""
    return jsonify(openapi.write(current_app))


@blueprint.get("/docs")
def docs() -> str:
    """Swagger UI, to read and try the API."""
    return render_template("docs.html")


@blueprint.get("/docs/<any('swagger-ui.css', 'swagger-ui-bundle.js'):name>")
def docs_file(name: str) -> Response:
    """Swagger UI's own files: the page works without the internet."""
    with as_file(files("swagger_ui") / "static") as folder:
        return send_from_directory(folder, name, max_age=86400)
