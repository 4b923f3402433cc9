"""A program that is told of jobs' ends."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

from tests.waiting import PATIENCE_S


@dataclass(frozen=True)
class Told:
    """One request that came in.

    Attributes:
        path: with the query.
        headers: by names in lower case.
        at_s: when, on the monotonic clock.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes
    at_s: float


Answer = Callable[[BaseHTTPRequestHandler], None]


def allowing(ports: list[int], **settings: str) -> dict[str, str]:
    """A server's settings by which programs on these ports are told, and soon told again."""
    origins = [f"http://127.0.0.1:{port}/told" for port in ports]
    origins += ["http://nowhere.invalid", *(f"https://localhost:{port}" for port in ports)]
    return {
        "DARKROOM_WEBHOOKS__ALLOW": json.dumps(origins),
        "DARKROOM_WEBHOOKS__RETRY_S": "0.05",
        "DARKROOM_WEBHOOKS__TIMEOUT_S": "3",
        "DARKROOM_WEBHOOKS__MAX_ATTEMPTS": "3",
        **settings,
    }


def answering(status: int, **headers: str) -> Answer:
    """An answer without a body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", "0")
        handler.end_headers()

    return answer


class Receiver:
    """Answers what it is told to, one after the other, and then 204.

    Attributes:
        url: its own.
    """

    def __init__(self, *answers: Answer, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._told: Queue[Told] = Queue()
        left = list(answers)
        told, lock = self._told, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                names = {name.lower(): value for name, value in self.headers.items()}
                with lock:
                    answer = left.pop(0) if left else answering(204)
                    told.put(Told(self.path, names, body, time.monotonic()))
                answer(self)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:  # who called is gone, as is to be expected
                pass

        self._server = Quiet(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def next(self) -> Told:
        """What it is told next, or was and nobody asked yet."""
        return self._told.get(timeout=PATIENCE_S)

    def count(self) -> int:
        """How much was told that nobody asked for yet."""
        return self._told.qsize()

    @contextmanager
    def listening(self) -> Iterator["Receiver"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
