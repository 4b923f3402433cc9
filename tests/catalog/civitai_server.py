"""Civitai on this machine: the part of its API that a download uses, and the host of its files.

As there, a download is a redirect to another host with an address that is signed. That refuses
addresses with a token besides, as S3 does.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

API = re.compile(r"/api/v1/(models|model-versions)/(\d+)")
DOWNLOAD = re.compile(r"/api/download/models/(\d+)")


@dataclass
class Site:
    """What the site holds, and what it was asked.

    Attributes:
        versions: as its API describes them, by id; newest first.
        contents: of their files, by version.
        needs_token: versions that only accounts get.
        token: of the only account.
        cut: bytes after which the connection is dropped, once for each entry.
        damaged: versions whose file comes with a byte changed.
        ranges: `Range` headers that came.
    """

    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    needs_token: set[str] = field(default_factory=set)
    token: str = "key"
    cut: list[int] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)
    ranges: list[str] = field(default_factory=list)
    url: str = ""
    files_url: str = ""

    def add(self, version: str, name: str, data: bytes, kind: str = "Checkpoint") -> None:
        """Publish a version with one file."""
        said = {
            "name": name,
            "type": "Model",
            "sizeKB": len(data) / 1024,
            "metadata": {"fp": "fp16", "format": "SafeTensor"},
            "hashes": {"SHA256": hashlib.sha256(data).hexdigest().upper()},
            "downloadUrl": f"https://civitai.com/api/download/models/{version}?type=Model",
            "primary": True,
        }
        self.versions[version] = {
            "id": int(version),
            "modelId": 4384,
            "name": "v1",
            "trainedWords": ["inkstyle"],
            "model": {"name": "Ink", "type": kind},
            "files": [said],
        }
        self.contents[version] = data


@contextmanager
def serving() -> Iterator[Site]:
    """A site that answers while the block lasts."""
    site = Site()
    with ExitStack() as stack:
        site.files_url = stack.enter_context(_listening(_Files, site))
        site.url = stack.enter_context(_listening(_Pages, site))
        yield site


@contextmanager
def _listening(handler: type[BaseHTTPRequestHandler], site: Site) -> Iterator[str]:
    made = type("Handler", (handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), made)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_arguments: Any) -> None:
        """Quiet."""

    def send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def send_json(self, status: int, value: Any) -> None:
        self.send(status, json.dumps(value).encode(), Content_Type="application/json")


class _Pages(_Quiet):
    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if found := API.fullmatch(path):
            return self._tell(*found.groups())
        if found := DOWNLOAD.fullmatch(path):
            return self._redirect(found[1])
        return self.send(404, b"<html>")

    def _tell(self, kind: str, identity: str) -> None:
        versions = self.site.versions
        if kind == "model-versions" and identity in versions:
            return self.send_json(200, versions[identity])
        own = [each for each in versions.values() if str(each["modelId"]) == identity]
        if kind == "models" and own:
            plain = [{k: v for k, v in each.items() if k != "model"} for each in own]
            return self.send_json(200, {**own[0]["model"], "id": 4384, "modelVersions": plain})
        return self.send_json(404, {"error": f"No model with id {identity}"})

    def _redirect(self, version: str) -> None:
        if version not in self.site.contents:
            return self.send_json(404, {"error": "File not found"})
        told = self.headers.get("Authorization")
        if version in self.site.needs_token and told != f"Bearer {self.site.token}":
            message = "The creator of this asset requires you to be logged in to download it"
            return self.send_json(401, {"error": "Unauthorized", "message": message})
        return self.send(307, b"", Location=f"{self.site.files_url}/{version}?X-Amz-Signature=1")


class _Files(_Quiet):
    def do_GET(self) -> None:
        if "Authorization" in self.headers:
            return self.send(400, b"<Error><Code>InvalidRequest</Code></Error>")
        version = urlsplit(self.path).path.removeprefix("/")
        data = self.site.contents[version]
        begin = 0
        wanted = self.headers.get("Range", "")
        if wanted and not wanted.endswith("-"):  # the beginning of a file
            start = data[: int(wanted.rpartition("-")[2]) + 1]
            return self.send(206, start, Content_Range=f"bytes 0-{len(start) - 1}/{len(data)}")
        if version in self.site.damaged:
            data = data[:-1] + b"\xff"
        if wanted:
            self.site.ranges.append(wanted)
            begin = int(wanted.removeprefix("bytes=").split("-")[0])
            if begin >= len(data):
                return self.send(416, b"", Content_Range=f"bytes */{len(data)}")
        self.send_response(206 if begin else 200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(data) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        end = self.site.cut.pop(0) if self.site.cut else len(data)
        self.wfile.write(data[begin:end])
        self.close_connection = end < len(data)
        return None
