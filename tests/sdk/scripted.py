"""An HTTP server that answers from a list, for answers that the real one gives too rarely."""

import json
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.waiting import PATIENCE_S


@dataclass(frozen=True)
class Reply:
    """`endless` is sent after `body` again and again until the caller leaves.

    Nothing is sent before `after` is set.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    endless: bytes = b""
    after: threading.Event | None = None


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def json_reply(data: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(status, json.dumps(data).encode(), {"Content-Type": "application/json", **headers})


def problem(status: int, kind: str = "test", **headers: str) -> Reply:
    body = {
        "type": f"urn:darkroom:problem:{kind}",
        "title": "A title",
        "status": status,
        "detail": "a detail",
        "errors": [{"pointer": "#/width", "detail": "is odd"}],
        "request_id": "abc123",
    }
    headers = {"Content-Type": "application/problem+json", **headers}
    return Reply(status, json.dumps(body).encode(), headers)


class ScriptedServer:
    """Gives one reply after the other, the last one for ever. Remembers what it was asked."""

    def __init__(self, replies: Iterable[Reply]) -> None:
        self.received: list[Received] = []
        self._replies = deque(replies)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        script = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                seen = Received(self.command, self.path, dict(self.headers.items()), body)
                script.received.append(seen)
                replies = script._replies
                reply = replies.popleft() if len(replies) > 1 else replies[0]
                if reply.after is not None:
                    reply.after.wait(PATIENCE_S)
                self.send_response_only(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if not reply.endless:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                try:
                    self.wfile.write(reply.body)
                    while reply.endless:
                        self.wfile.write(reply.endless)
                except OSError:
                    self.close_connection = True  # the caller has left, as callers do

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

        return Handler
