"""The mobile client's page and built files; health, metrics, and the API document."""

import mimetypes
from importlib.resources import as_file, files
from pathlib import Path

from flask import (
    Blueprint,
    Response,
    current_app,
    jsonify,
    render_template,
    request,
    send_from_directory,
)
from prometheus_client import CollectorRegistry, Gauge, generate_latest

import darkroom
from darkroom.api import openapi
from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError, not_found

blueprint = Blueprint("system", __name__)

# Where `npm run build` in mobile_client/, or the packaging, leaves the client.
FOLDER = Path(__file__).parents[2] / "client"
MANIFEST = "application/manifest+json"
YEAR_S = 31_536_000
DAY_S = 86_400


@blueprint.get("/")
@access.open_to_all
def home() -> Response:
    """The mobile client's page."""
    if not (FOLDER / "index.html").is_file():
        page = render_template("no_client.html", version=darkroom.__version__)
        return Response(page, content_type="text/html; charset=utf-8")
    return _send("index.html")


@blueprint.get("/sw.js")
@access.open_to_all
def service_worker() -> Response:
    """The service worker, which opens the client offline. Its path is its scope: all pages."""
    return _send("sw.js")


@blueprint.get("/manifest.webmanifest")
@access.open_to_all
def manifest() -> Response:
    """The web app manifest, with which phones install the client."""
    return _send("manifest.webmanifest")


@blueprint.get("/assets/<name>")
@access.open_to_all
def asset(name: str) -> Response:
    """A script or style sheet. Its name holds a digest of its content, so it never changes."""
    response = _send(f"assets/{name}", YEAR_S)
    response.cache_control.immutable = True
    return response


@blueprint.get("/icons/<name>")
@access.open_to_all
def icon(name: str) -> Response:
    """The client's icons."""
    return _send(f"icons/{name}", DAY_S)


@blueprint.get("/favicon.ico")
@access.open_to_all
def favicon() -> Response:
    """The icon that browsers look for by themselves."""
    return _send("icons/favicon.ico", DAY_S)


def _send(name: str, max_age_s: int | None = None) -> Response:
    """A file of the client, compressed if the browser accepts that; ProblemError 404.

    Without `max_age_s`, browsers revalidate it each time.
    """
    if not (FOLDER / name).is_file():
        raise not_found(f"file {name!r}")
    kind = MANIFEST if name.endswith(".webmanifest") else mimetypes.guess_type(name)[0]
    packed = request.accept_encodings.quality("gzip") and (FOLDER / f"{name}.gz").is_file()
    sent = f"{name}.gz" if packed else name
    response = send_from_directory(FOLDER, sent, max_age=max_age_s, mimetype=kind)
    if packed:
        response.content_encoding = "gzip"
    if max_age_s is None:
        response.cache_control.no_cache = True
    response.vary.add("Accept-Encoding")
    return response


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
    about = "Space left for pictures, or in the data folder if these are elsewhere."
    free = Gauge("darkroom_disk_free_bytes", about, registry=registry)
    free.set(here.free_bytes())
    least = Gauge(
        "darkroom_disk_min_free_bytes", "With less space nothing is accepted.", registry=registry
    )
    least.set(here.settings.queue.min_free_bytes)
    text = generate_latest(registry) + generate_latest(here.meters.registry)
    return Response(text, content_type="text/plain; version=0.0.4")


@blueprint.get("/openapi.json")
def openapi_document() -> Response:
    """The API document, OpenAPI 3.1."""
    return jsonify(openapi.document(current_app))


@blueprint.get("/docs")
def docs() -> str:
    """Swagger UI, to read and try the API."""
    return render_template("docs.html")


@blueprint.get("/docs/<any('swagger-ui.css', 'swagger-ui-bundle.js'):name>")
def docs_file(name: str) -> Response:
    """Swagger UI's own files: the page works without the internet."""
    with as_file(files("swagger_ui") / "static") as folder:
        return send_from_directory(folder, name, max_age=DAY_S)
