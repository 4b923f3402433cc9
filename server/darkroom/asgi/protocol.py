"""One connection: HTTP/1.1 from bytes to an ASGI request, by uvicorn, with our limits around it.

What a stranger can hold is a connection, so each state of one has an end: a head has to be complete
in time, a reader has to read, and a connection that is refused is closed soon after.
"""

import asyncio
import socket
import sys
from typing import Any

import h11
import structlog
from uvicorn import Config
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from darkroom.asgi import refusal
from darkroom.asgi.listener import TooSlowError
from darkroom.asgi.refusal import RefusedError
from darkroom.config import WebSettings

log = structlog.get_logger()

LINGER_S = 2.0  # how long a refused caller, who may still be sending, gets to read why
SPARE_CONNECTIONS = 64  # beyond the limit, that are told so; further ones are just closed


class Protocol(H11Protocol):
    """A connection.

    Args:
        config: uvicorn's, with the application.
        server_state: shared by all connections.
        limits: of sizes, times and connections.
    """

    def __init__(self, config: Config, server_state: ServerState, limits: WebSettings) -> None:
        super().__init__(config, server_state, {})
        self._limits = limits
        self._patience_s = limits.body_timeout_s
        self._application = self.app
        self.app = self._answer
        self._superfluous = False
        self._refused = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None

    # --- the connection --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        others = len(self.connections) - 1
        if others >= self._limits.max_connections + SPARE_CONNECTIONS:
            transport.abort()
            return
        self._superfluous = others >= self._limits.max_connections
        _set_up(transport.get_extra_info("socket"), self._limits.body_timeout_s)
        self._await_head(self._limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()  # uvicorn leaves it when the connection broke
        self._head_is_complete()
        self._reader_reads()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return  # read, so that closing does not reset the connection under the answer
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head_is_complete()
        elif self._head_timer is None and not self.transport.is_closing():
            self._await_head(self._limits.header_timeout_s)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._see_to_closing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._see_to_closing()

    def shutdown(self) -> None:
        self._head_is_complete()
        self._patience_s = min(LINGER_S, self._patience_s)
        if self._reader_timer is not None:
            self._reader_reads()
            self._watch_reader()
        if self._refused:
            self.transport.close()
        else:
            super().shutdown()
        self._see_to_closing()

    # --- heads -----------------------------------------------------------------------------

    def _await_head(self, timeout_s: float) -> None:
        self._head_timer = self.loop.call_later(timeout_s, self._head_is_late)

    def _head_is_complete(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.conn.trailing_data[0]:
            self._refuse(refusal.slow_head(self._limits.header_timeout_s))
        else:
            self.transport.close()  # nothing was ever asked

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """h11 cannot read what was sent; uvicorn calls this while the exception is handled."""
        error = sys.exception()
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            self._refuse(refusal.long_head(self._limits.max_header_bytes))
        else:
            self._refuse(refusal.malformed(str(error)))

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade may be ignored (RFC 9110, section 7.8), and is no news to the owner."""

    # --- answers ---------------------------------------------------------------------------

    async def _answer(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        try:
            if self._superfluous:
                raise refusal.no_room("too many connections are open")
            if _head_bytes(scope) > self._limits.max_header_bytes:
                raise refusal.long_head(self._limits.max_header_bytes)
            await self._application(scope, receive, send)
        except TooSlowError:
            self.transport.abort()
        except RefusedError as refused:
            self._refuse(refused)
        except asyncio.CancelledError:
            self.transport.abort()  # the server ends, and this answer is not going to
        except Exception:
            crash = refusal.crashed()
            log.exception("request failed", request_id=crash.problem.request_id)
            self._refuse(crash)

    def _refuse(self, refused: RefusedError) -> None:
        """Answer instead of the application, and close. An answer that has begun is cut off."""
        self._head_is_complete()
        if self.transport.is_closing() or self._refused:
            return
        head_only = False
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
            head_only = self.scope["method"] == "HEAD"
        status = refused.status
        headers = self.server_state.default_headers + refused.headers()
        self._write(
            h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
        )
        if not head_only:
            self._write(h11.Data(data=refused.body()))
        self._write(h11.EndOfMessage())
        self._refused = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self._end_refused)

    def _write(self, event: h11.Event) -> None:
        self.transport.write(self.conn.send(event) or b"")

    def _end_refused(self) -> None:
        self.transport.close()
        self._see_to_closing()

    # --- readers ---------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader_reads()

    def _see_to_closing(self) -> None:
        """A transport that is closed waits, however long, until its reader took the rest."""
        if self.transport.is_closing():
            self._watch_reader()

    def _watch_reader(self) -> None:
        if self._reader_timer is None:
            unread = self.transport.get_write_buffer_size()
            self._reader_timer = self.loop.call_later(
                self._patience_s, self._look_at_reader, unread
            )

    def _look_at_reader(self, before: int) -> None:
        self._reader_timer = None
        if self.transport.get_write_buffer_size() < before:
            self._watch_reader()
        else:
            self.transport.abort()

    def _reader_reads(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None


def _head_bytes(scope: HTTPScope) -> int:
    """What a head took, about; h11 measures only heads that come in parts."""
    target = len(scope["raw_path"]) + len(scope["query_string"])
    return target + sum(len(name) + len(value) + 4 for name, value in scope["headers"])


def _set_up(peer: Any, silence_s: float) -> None:
    """Send at once, and have the kernel notice that a phone has left without a word."""
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
