"""The mobile client's files, as the server hands them out."""

import json
import re
from pathlib import Path

import pytest
from flask import Flask

from darkroom.api.routes import system
from tests.serving import RunningServer


def test_the_page_is_asked_about_each_time_and_comes_once(server: RunningServer) -> None:
    page = server.http.get("/")
    again = server.http.get("/", headers={"If-None-Match": page.headers["ETag"]})

    assert page.status_code == 200
    assert "<title>Darkroom</title>" in page.text
    assert "no-cache" in page.headers["Cache-Control"]
    assert again.status_code == 304


def test_what_the_page_needs_comes_from_this_server_and_is_kept_for_good(
    server: RunningServer,
) -> None:
    page = server.http.get("/").text
    needs = re.findall(r'(?:src|href)="([^"]+)"', page)

    assert needs
    assert all(need.startswith("/") for need in needs)
    for need in needs:
        answer = server.http.get(need)
        assert answer.status_code == 200, need
        if need.startswith("/assets/"):
            assert "immutable" in answer.headers["Cache-Control"]


def test_scripts_travel_packed_to_whoever_takes_them_so(server: RunningServer) -> None:
    (script,) = re.findall(r'src="(/assets/[^"]+)"', server.http.get("/").text)
    packed = server.http.get(script)
    plain = server.http.get(script, headers={"Accept-Encoding": "identity"})

    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < len(plain.content) / 2
    assert "Content-Encoding" not in plain.headers
    for answer in (packed, plain):
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers["Content-Type"].startswith("text/javascript")
    assert packed.text == plain.text  # as the client unpacked it


def test_the_page_keeps_to_a_strict_content_security_policy(server: RunningServer) -> None:
    page = server.http.get("/").text

    assert re.findall(r"<script(?![^>]*\ssrc=)", page) == []
    assert "<style" not in page
    assert "style=" not in page


def test_the_service_worker_is_in_charge_of_the_whole_origin(server: RunningServer) -> None:
    worker = server.http.get("/sw.js")

    assert worker.headers["Content-Type"].startswith("text/javascript")
    assert "no-cache" in worker.headers["Cache-Control"]
    assert "__SHELL__" not in worker.text
    for name in re.findall(r'src="(/assets/[^"]+)"', server.http.get("/").text):
        assert name in worker.text


def test_a_phone_can_install_it(server: RunningServer) -> None:
    answer = server.http.get("/manifest.webmanifest")
    manifest = json.loads(answer.text)

    assert answer.headers["Content-Type"].startswith("application/manifest+json")
    assert {icon.get("purpose", "any") for icon in manifest["icons"]} == {"any", "maskable"}
    for icon in manifest["icons"]:
        assert server.http.get(icon["src"]).headers["Content-Type"] == icon["type"] + (
            "; charset=utf-8" if icon["type"] == "image/svg+xml" else ""
        )


@pytest.mark.parametrize(
    "path", ["/assets/missing.js", "/assets/..%2fclient.py", "/icons/..%2f..%2fapp.py", "/icons/."]
)
def test_nothing_else_is_found_there(server: RunningServer, path: str) -> None:
    answer = server.http.get(path)

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_without_a_built_client_the_page_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "FOLDER", tmp_path)
    app = Flask("darkroom.api")
    app.register_blueprint(system.blueprint)

    page = app.test_client().get("/")

    assert page.status_code == 200
    assert "make client" in page.text
