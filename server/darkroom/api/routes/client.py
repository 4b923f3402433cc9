"""The mobile client: its page and its built files."""

import mimetypes
from pathlib import Path

from flask import Blueprint, Response, render_template, request, send_from_directory

import darkroom
from darkroom.api.auth import access
from darkroom.api.errors import not_found

blueprint = Blueprint("client", __name__)

# Where `npm run build` in mobile_client/, or the packaging, leaves the client.
FOLDER = Path(__file__).parents[2] / "client"
YEAR_S = 31_536_000
DAY_S = 86_400


@blueprint.get("/")
@access.open_to_all
def home() -> Response:
    """The mobile client's page."""
    if not (FOLDER / "index.html").is_file():
        page = render_template("no_client.html", version=darkroom.__version__)
        return Response(page, content_type="text/html; charset=utf-8")
    return _fresh("index.html")


@blueprint.get("/sw.js")
@access.open_to_all
def service_worker() -> Response:
    """The service worker, which opens the client offline. Its path is its scope: all pages."""
    return _fresh("sw.js")


@blueprint.get("/manifest.webmanifest")
@access.open_to_all
def manifest() -> Response:
    """The web app manifest, with which phones install the client."""
    return _fresh("manifest.webmanifest", "application/manifest+json")


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


def _fresh(name: str, mimetype: str | None = None) -> Response:
    """A file that browsers revalidate each time."""
    response = _send(name, None, mimetype)
    response.cache_control.no_cache = True
    return response


def _send(name: str, max_age_s: int | None, mimetype: str | None = None) -> Response:
    """A file of the client, compressed if the browser accepts that.

    Raises:
        ProblemError: 404.
    """
    if not (FOLDER / name).is_file():
        raise not_found(f"file {name!r}")
    packed = f"{name}.gz"
    if not request.accept_encodings.quality("gzip") or not (FOLDER / packed).is_file():
        response = send_from_directory(FOLDER, name, max_age=max_age_s, mimetype=mimetype)
    else:
        kind = mimetype or mimetypes.guess_type(name)[0]
        response = send_from_directory(FOLDER, packed, max_age=max_age_s, mimetype=kind)
        response.content_encoding = "gzip"
    response.vary.add("Accept-Encoding")
    return response
