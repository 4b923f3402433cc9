"""A TCP proxy that cuts connections."""

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class LossyProxy:
    """Lies before a real server.

    Args:
        url: of the server.
        allowances: bytes of answers that the first connections carry before they are cut; later
            ones carry any number. With 0 the server has got the request and answered it, and
            nobody hears of it.
    """

    def __init__(self, url: str, allowances: Iterable[int]) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.connections = 0
        self._target = (parts.hostname, parts.port)
        self._allowances = deque(allowances)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for end in self._open:
            _shut(end)
        for thread in self._threads:
            thread.join()
        for end in self._open:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # shut down
            far = socket.create_connection(self._target)
            self.connections += 1
            self._open += [near, far]
            allowance = self._allowances.popleft() if self._allowances else None
            for source, sink, limit in ((near, far, None), (far, near, allowance)):
                thread = threading.Thread(target=_carry, args=(source, sink, limit))
                thread.start()
                self._threads.append(thread)


def _carry(source: socket.socket, sink: socket.socket, allowance: int | None) -> None:
    """Pass bytes on until either end closes or the allowance is used up; then close both."""
    try:
        while data := source.recv(65536):
            if allowance is not None:
                data, allowance = data[:allowance], allowance - len(data)
            sink.sendall(data)
            if allowance is not None and allowance <= 0:
                break
    except OSError:
        pass  # the other direction has closed them
    _shut(source)
    _shut(sink)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was shut before
        end.shutdown(socket.SHUT_RDWR)
