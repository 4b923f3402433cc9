"""One HTTP/1.1 connection: gunicorn's ASGI protocol with limits on what a caller can hold.

Each state of a connection ends: a request's head must be complete in time, a reader must keep
reading, and a connection that was refused is closed soon after. gunicorn has no such limits, so
four of its methods are overridden beside those of `asyncio.Protocol`: `_on_headers_complete`,
`_is_websocket_upgrade`, `_send_error_response` and `_close_transport`.
"""

import asyncio
import re
import secrets
import socket
import sys
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.asgi.parser import InvalidHTTPVersion
from gunicorn.asgi.protocol import ASGIProtocol

from darkroom.api.auth.origin import AllowedOrigins
from darkroom.asgi import Message, Receive, Scope, Send, limits
from darkroom.asgi.events import TooSlowError
from darkroom.asgi.limits import RefusedError
from darkroom.config import WebSettings

if TYPE_CHECKING:
    from darkroom.asgi.server import Worker

log = structlog.get_logger()

KEEP_ALIVE_S = 30
LINGER_S = 2.0  # how long a refused caller, who may still be sending, has to read the refusal
SPARE_CONNECTIONS = 64  # beyond the limit, that are answered 503; further ones are just closed
ALLOW = (b"allow", b"GET, HEAD, POST, PATCH, DELETE, OPTIONS")
EMPTY_LINES = re.compile(rb"(?:\r\n)*")  # before a request, to be ignored (RFC 9112, section 2.2)
ORIGIN = re.compile(rb"\r\norigin:([^\r\n]*)", re.IGNORECASE)
VERSION = re.compile(r"HTTP/\d\.\d")  # RFC 9112, section 2.3
SERVER = (b"server", b"darkroom")  # gunicorn would name itself


class Connection(ASGIProtocol):  # type: ignore[misc]
    """A connection that `worker` accepted, whose application it calls."""

    def __init__(self, worker: "Worker", settings: WebSettings) -> None:
        super().__init__(worker)
        self._application = worker.asgi
        self.app = self._answer
        self._limits = settings
        self._patience_s = settings.body_timeout_s
        self._is_superfluous = False
        self._is_refused = False
        self._head = bytearray()  # as received so far, of a request without an answer yet
        self._requests = 0  # whose heads are complete, and whose calls have not returned
        self._method = ""
        self._pages = AllowedOrigins(settings.allowed_origins)
        self._for_page: list[tuple[bytes, bytes]] = []  # added to the answer of this request
        self._is_responding = False
        self._lost = asyncio.Event()
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        others = len(self.worker.connections)
        self.worker.connections.add(self)
        if others >= self._limits.max_connections + SPARE_CONNECTIONS or not self.worker.alive:
            transport.abort()
            return
        self._is_superfluous = others >= self._limits.max_connections
        _set_options(transport.get_extra_info("socket"), self._limits.body_timeout_s)
        self._await_head(self._limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        self.worker.connections.discard(self)
        super().connection_lost(exc)
        self.resume_writing()  # else a call that waits to write would wait for ever
        self._lost.set()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return  # read, because closing with unread data would reset the connection
        if not self._requests:
            if not self._head:
                self._await_head(self._limits.header_timeout_s)
            begins = EMPTY_LINES.fullmatch(self._head) is not None
            self._head += data
            if begins:  # gunicorn skips one
                data = EMPTY_LINES.sub(b"", data, count=1)
        try:
            super().data_received(data)
        except ValueError as error:  # int()'s, of a Content-Length with thousands of digits
            self._refuse(limits.malformed(str(error)))
        if len(self._head) > self._limits.max_header_bytes:
            self._refuse(limits.long_head(self._limits.max_header_bytes))

    def shut_down(self) -> None:
        """Close once the requests whose heads are complete are answered."""
        self._patience_s = min(LINGER_S, self._patience_s)
        if self._is_refused:
            self._close_refused()
        elif not self._requests:
            self._close_transport()
        self._watch_reader()

    def _close_transport(self) -> None:
        if not self._is_refused:  # else `_close_refused` will
            if not self.transport.is_closing():  # closed once more, TLS's forgets what it holds
                super()._close_transport()
            self._watch_reader()

    # --- heads -----------------------------------------------------------------------------

    def _await_head(self, seconds: float) -> None:
        """Have a head be complete within a time."""
        self._stop_timers()
        self._head_timer = self.worker.loop.call_later(seconds, self._head_is_late)

    def _on_headers_complete(self) -> bool:
        self._stop_timers()
        self._head.clear()
        self._requests += 1
        return bool(super()._on_headers_complete())

    def _is_websocket_upgrade(self, _request: Any) -> bool:
        return False  # an upgrade may be ignored (RFC 9110, section 7.8)

    def _head_is_late(self) -> None:
        if EMPTY_LINES.fullmatch(self._head):
            self._close_transport()  # nothing was asked
        else:
            self._refuse(limits.slow_head(self._limits.header_timeout_s))

    # --- answers ---------------------------------------------------------------------------

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application. The call goes on to its end, even if the caller leaves."""
        call = self.worker.loop.create_task(self._call(scope, receive, send))
        self.worker.calls.add(call)
        call.add_done_callback(self.worker.calls.discard)
        await asyncio.shield(call)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def respond(message: Message) -> None:
            if self._is_refused:
                return
            if message["type"] == "http.response.start":
                self._is_responding = True
                headers = [*message["headers"], *self._for_page, SERVER]
                message = {**message, "headers": headers}
            await send(message)

        self._method, self._for_page = scope["method"], self._pages.headers(scope)
        try:
            self._check(scope)
            # `*` asks about the server (RFC 9110, section 9.3.7).
            headers = [ALLOW] if scope["path"] == "*" else self._pages.preflight(scope)
            if headers is None:
                await self._application(_in_origin_form(scope), receive, respond)
            else:
                head = {"status": HTTPStatus.NO_CONTENT, "headers": headers}
                await respond({"type": "http.response.start", **head})
                await respond({"type": "http.response.body", "body": b""})
        except RefusedError as refused:
            self._refuse(refused)
        except (TooSlowError, asyncio.CancelledError):  # cancelled: the server stops
            self.transport.abort()
        except Exception:
            request_id = secrets.token_hex(8)
            log.exception("request failed", request_id=request_id)
            self._refuse(limits.crashed(request_id))
        self._requests -= 1
        self._method, self._for_page, self._is_responding = "", [], False
        if self.transport.is_closing():
            await self._lost.wait()
        elif not (self._requests or self._is_refused):
            self._await_head(KEEP_ALIVE_S)

    def _check(self, scope: Scope) -> None:
        """Look at a head that gunicorn has parsed.

        Raises:
            RefusedError: the application is not to answer it.
        """
        if self._is_superfluous:
            raise limits.no_room("too many connections are open")
        # About; `data_received` counts only heads that come in parts.
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if size > self._limits.max_header_bytes:
            raise limits.long_head(self._limits.max_header_bytes)
        if scope["http_version"] != "1.0" and b"host" not in dict(scope["headers"]):
            raise limits.malformed("Host is missing")  # RFC 9112, section 3.2

    def _send_error_response(self, status: int, message: str, _extra: Any = ()) -> None:
        """Refuse what gunicorn's parser cannot read, or what the application left unanswered."""
        if isinstance(sys.exception(), InvalidHTTPVersion) and VERSION.fullmatch(message):
            self._refuse(limits.other_version(message))
        elif status == HTTPStatus.NOT_IMPLEMENTED:
            self._refuse(limits.other_coding(message))
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._refuse(limits.crashed(secrets.token_hex(8)))
        elif status in (414, 431):
            self._refuse(limits.long_head(self._limits.max_header_bytes))
        else:
            self._refuse(limits.malformed(message))

    def _refuse(self, refused: RefusedError) -> None:
        """Answer instead of the application, and close; an answer that has begun is cut off.

        What the caller sends is read for a while, so that the answer can be read.
        """
        if self._is_refused or self.transport.is_closing():
            return
        if self._is_responding:
            self.transport.abort()
            return
        status = HTTPStatus(refused.status)
        date = (b"date", formatdate(usegmt=True).encode())
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
        for_page = self._for_page or self._pages.headers_by(self._origin_in_head())
        headers = (*refused.headers, *for_page, SERVER, date)
        lines += [name + b": " + value for name, value in headers]
        body = b"" if self._method == "HEAD" else refused.body
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        self._is_refused = True
        self._stop_timers()
        self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.worker.loop.call_later(LINGER_S, self._close_refused)

    def _origin_in_head(self) -> bytes:
        """The origin in a head that could not be parsed; empty if none is there."""
        found = ORIGIN.search(self._head)
        return b"" if found is None else found[1].strip()

    def _close_refused(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
        self._watch_reader()

    # --- readers ---------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader_timer is not None and not self.transport.is_closing():
            self._stop_timers()

    def _watch_reader(self) -> None:
        """Abort if the caller does not read; a transport, even a closed one, waits for ever."""
        unread = self.transport.get_write_buffer_size()
        if unread and not self._lost.is_set():
            self._stop_timers()
            self._reader_timer = self.worker.loop.call_later(
                self._patience_s, self._look_at_reader, unread
            )

    def _look_at_reader(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._watch_reader()
        else:
            self.transport.abort()

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._reader_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._reader_timer = None


def _in_origin_form(scope: Scope) -> Scope:
    """A request with a path as its target.

    Where the target is a URL, as for a proxy, its host takes the place of the header `Host` (RFC
    9112, section 3.2.2).

    Raises:
        RefusedError: it is not an HTTP URL.
    """
    scheme, separator, rest = scope["raw_path"].partition(b"://")
    if not separator or b"/" in scheme:
        return scope
    host, slash, path = rest.partition(b"/")
    if scheme.lower() not in (b"http", b"https") or not host:
        raise limits.malformed("the target is not an HTTP URL")
    headers = [header for header in scope["headers"] if header[0] != b"host"]
    return {**scope, "raw_path": (slash or b"/") + path, "headers": [*headers, (b"host", host)]}


def _set_options(peer: socket.socket, silence_s: float) -> None:
    """Send at once, and have the kernel notice a caller that left without a word."""
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    seconds = max(1, int(silence_s))
    for name, value in (
        ("TCP_KEEPIDLE", seconds),
        ("TCP_KEEPINTVL", max(1, seconds // 3)),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 1000 * seconds),  # Linux: of what was sent and is not acknowledged
    ):
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
