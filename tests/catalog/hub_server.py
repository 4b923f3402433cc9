"""A hub on this machine: the part of the Hugging Face Hub's API that a download uses."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LISTING = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+?)(?:/revision/(?P<revision>[^/]+))?")
FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Hub:
    """What the hub holds, and what it was asked.

    Attributes:
        repositories: contents by file name, by `owner/name`.
        gated: repositories whose files need terms accepted.
        cut: bytes after which the connection is dropped, by file name; no more is given of it.
        damaged: files that come with a byte changed.
        sizes: what is claimed in listings instead of the truth, by file name.
        ranges: `Range` headers that came, by file name.
        held: while it is clear, weights come without their last byte.
        url: for `HF_ENDPOINT`.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)
    ranges: dict[str, list[str]] = field(default_factory=dict)
    held: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def __post_init__(self) -> None:
        self.held.set()

    def add(self, repository: str, folder: Path) -> None:
        """Publish a folder."""
        self.repositories[repository] = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers while the block lasts."""
    hub = Hub()

    class Handler(_Handler):
        holds = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.held.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    holds: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_arguments: Any) -> None:
        """Quiet."""

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        for pattern, answer in ((FILE, self._file), (LISTING, self._listing)):
            found = pattern.fullmatch(path)
            if found is None:
                continue
            asked = found.groupdict()
            if asked["repo"] not in self.holds.repositories:
                return self._refuse(404, "RepoNotFound")
            if asked["revision"] not in (None, "main", COMMIT):
                return self._refuse(404, "RevisionNotFound")
            return answer(asked, body)
        return self._refuse(404, "EntryNotFound")

    def _listing(self, asked: dict[str, str], _body: bool) -> None:
        files = self.holds.repositories[asked["repo"]]
        siblings = [
            {
                "rfilename": name,
                "size": self.holds.sizes.get(name, len(data)),
                "lfs": {"size": len(data), "sha256": _sha256(data), "pointerSize": 1}
                if name.endswith(".safetensors")
                else None,
            }
            for name, data in files.items()
        ]
        self._send_json({"id": asked["repo"], "sha": COMMIT, "siblings": siblings})

    def _file(self, asked: dict[str, str], body: bool) -> None:
        if asked["repo"] in self.holds.gated:
            return self._refuse(403, "GatedRepo")
        name = asked["file"]
        data = self.holds.repositories[asked["repo"]].get(name)
        if data is None:
            return self._refuse(404, "EntryNotFound")
        begin = 0
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            if last:
                return self._head(data, int(last) + 1, body)
            self.holds.ranges.setdefault(name, []).append(wanted)
            begin = int(first)
            if name in self.holds.cut:
                return self._refuse(500, "")
        self.send_response(206 if begin else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_sha256(data)}"')
        self.send_header("Accept-Ranges", "bytes")
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if body:
            end = self.holds.cut.get(name, len(data))
            sent = b"\xff" + data[1:] if name in self.holds.damaged else data
            self._write_slowly(name, sent[begin:end])
            self.close_connection = end < len(data)
        return None

    def _write_slowly(self, name: str, data: bytes) -> None:
        """Write a file; of weights the last byte when `held` allows it."""
        self.wfile.write(data[:-1])
        self.wfile.flush()
        if name.endswith(".safetensors"):
            self.holds.held.wait()
        self.wfile.write(data[-1:])

    def _head(self, data: bytes, length: int, body: bool) -> None:
        """The beginning of a file."""
        start = data[:length]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes 0-{len(start) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(start)))
        self.end_headers()
        if body:
            self.wfile.write(start)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
