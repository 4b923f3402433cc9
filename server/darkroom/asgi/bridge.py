"""The ASGI application: Flask in threads (PEP 3333), and on the event loop all that only waits.

A request is read on the loop, body and all, before it takes a thread, and its thread is free again
before the answer is sent. So neither a slow caller nor one who waits for a job holds one.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from io import BytesIO
from time import monotonic
from typing import IO, Any
from urllib.parse import unquote_to_bytes

from darkroom.api.auth import access
from darkroom.api.auth.origin import Proxies
from darkroom.api.callers import HOLD, Hold
from darkroom.asgi import Receive, Scope, Send
from darkroom.asgi.limits import (
    SMALL_BYTES,
    Bodies,
    CallerGoneError,
    RefusedError,
    Threads,
    declared_bytes,
)
from darkroom.asgi.streams import Streams
from darkroom.asgi.wait import (
    STRANGER,
    Application,
    DeferredResponse,
    Environ,
    EventStream,
    PendingResponse,
    WsgiApp,
)
from darkroom.config import Settings

Headers = list[tuple[bytes, bytes]]

WRITE_BYTES = 2**16  # sent at once, so that a reader is seen to read
AHEAD_BYTES = 2**20  # of an answer, made before the first are sent
LARGE_SHARE = 4  # one thread for requests with pictures to so many for the others
MAPPED = "::ffff:"  # how a socket of both families shows an IPv4 address (RFC 4291, 2.5.5.2)
UNPREFIXED = {"CONTENT_TYPE", "CONTENT_LENGTH"}


class Chunks:
    """A WSGI answer's body, made in threads.

    Attributes:
        ready: the bytes that were made last.
        more: whether there may be more.
    """

    def __init__(self, body: Any) -> None:
        self.ready = b""
        self.more = True
        self._body = body
        self._chunks = iter(body)

    def prepare(self) -> None:
        """Make the next `AHEAD_BYTES`, or what is left."""
        made = bytearray()
        for chunk in self._chunks:
            made += chunk
            if len(made) >= AHEAD_BYTES:
                break
        else:
            self.close()
        self.ready = bytes(made)

    def close(self) -> None:
        if self.more:
            self.more = False
            getattr(self._body, "close", lambda: None)()


@dataclass(frozen=True)
class Answer:
    """What Flask answered: a head, with names in lower case, and a body or how to go on."""

    status: int
    headers: Headers
    rest: Chunks | DeferredResponse


class Bridge:
    """Serves a Flask application whose answers may be deferred.

    Args:
        app: the application.
        streams: of the events that deferred answers wait for.
        settings: for limits, and where bodies may be stored.
    """

    def __init__(self, app: Application, streams: Streams, settings: Settings) -> None:
        self._app = app
        self._streams = streams
        self._threads = Threads(settings.web.threads, "web")
        self._uploads = Threads(max(1, settings.web.threads // LARGE_SHARE), "uploads")
        self._max_body_bytes = settings.web.max_body_bytes
        self._bodies = Bodies(settings.web, settings.data_dir, self._uploads)
        self._proxies = Proxies(settings.web.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Raises:
            RefusedError: its body cannot be taken, or not from this caller.
            TooSlowError: a listener does not keep up.
        """
        hold = Hold()
        try:
            await self._serve(self._proxies.look_behind(scope), hold, receive, send)
        finally:
            hold.ended = True

    async def _serve(self, scope: Scope, hold: Hold, receive: Receive, send: Send) -> None:
        """Answer a request, which has its jobs held."""
        context = copy_context()  # the request's own, in whichever threads it is worked on
        declared = declared_bytes(scope)
        is_authorized = declared is None or declared > SMALL_BYTES
        limit = self._max_body_bytes
        if is_authorized and await self._is_strangers(scope, context):
            limit = SMALL_BYTES  # routes that are open to all need little
        try:
            async with self._bodies.read(declared, receive, limit) as body:
                environ = environ_of(scope, body.file, body.size)
                environ[access.COUNTED] = is_authorized
                environ[HOLD] = hold
                # What is compressed may be large when it is unpacked.
                is_large = body.large_bytes or "HTTP_CONTENT_ENCODING" in environ
                threads = self._uploads if is_large else self._threads
                answer = await threads.run(context.run, _call, self._app.wsgi_app, environ)
        except CallerGoneError:
            return
        if isinstance(answer.rest, DeferredResponse):
            await self._finish(answer, context, environ, receive, send)
        else:
            await self._send(answer, answer.rest, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the streams' estimates up to date, and free the threads at the end."""
        estimates = asyncio.create_task(self._streams.send_estimates(self._threads))
        try:
            yield
        finally:
            estimates.cancel()
            self._threads.close()
            self._uploads.close()

    async def _is_strangers(self, scope: Scope, context: Context) -> bool:
        """Check who asks, and how often, before a large body is read: it may fill the disk.

        Returns whether it is nobody who is known.

        Raises:
            RefusedError: the application answers without the body.
        """
        environ = environ_of(scope, BytesIO(), 0)
        answer = await self._threads.run(context.run, self._app.authorize_headers, environ)
        if answer is not None:
            raise RefusedError(answer.status_code, _raw(answer.headers), answer.get_data())
        return bool(environ[STRANGER])

    async def _finish(
        self, answer: Answer, context: Context, environ: Environ, receive: Receive, send: Send
    ) -> None:
        """Send a deferred answer, unless the caller leaves before it is due."""
        # One task for all waits: after a cancelled `receive`, gunicorn's next one says at once that
        # the caller has left.
        gone = asyncio.create_task(_gone(receive))
        hold: Hold = environ[HOLD]
        gone.add_done_callback(lambda _: setattr(hold, "ended", True))
        try:
            while isinstance(answer.rest, PendingResponse):  # one job may lead to the next
                pending = answer.rest
                await self._wait(pending, context, gone)
                if gone.done():
                    await self._threads.run(context.run, pending.abandon)
                    return
                answer = await self._threads.run(context.run, _call, pending.answer, environ)
            if isinstance(answer.rest, EventStream):
                await self._stream(answer, answer.rest, gone, send)
            elif isinstance(answer.rest, Chunks):
                await self._send(answer, answer.rest, send)
        finally:
            gone.cancel()

    async def _wait(
        self, pending: PendingResponse, context: Context, gone: asyncio.Task[None]
    ) -> None:
        """Return once the job has ended, the deadline is over, or the caller has left."""
        with self._streams.ending(pending.job_id) as ended:
            if not await self._threads.run(context.run, pending.has_ended):
                deadline = pending.deadline
                patience_s = None if deadline is None else max(0.0, deadline - monotonic())
                await asyncio.wait(
                    {ended, gone}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
                )

    async def _stream(
        self, answer: Answer, wanted: EventStream, gone: asyncio.Task[None], send: Send
    ) -> None:
        await _send_head(answer, send)
        async with aclosing(self._streams.play(wanted, self._threads, gone)) as stream:
            async for data in stream:
                await _send_body(data, send)
        await _send_body(b"", send, more=False)

    async def _send(self, answer: Answer, chunks: Chunks, send: Send) -> None:
        try:
            await _send_head(answer, send)
            while True:
                for start in range(0, len(chunks.ready), WRITE_BYTES):
                    await _send_body(chunks.ready[start : start + WRITE_BYTES], send)
                if not chunks.more:
                    break
                await self._threads.run(chunks.prepare)
        finally:
            chunks.close()
        await _send_body(b"", send, more=False)


async def _send_head(answer: Answer, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})


async def _send_body(data: bytes, send: Send, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def _gone(receive: Receive) -> None:
    """Return once the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _call(app: WsgiApp, environ: Environ) -> Answer:
    """Call a WSGI application, and make the first bytes of its body. Runs in a thread."""
    began: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _error: Any = None) -> None:
        began[:] = [(status, headers)]

    rest = app(environ, start_response)
    if not isinstance(rest, DeferredResponse):
        rest = Chunks(rest)
        rest.prepare()
    ((status, headers),) = began
    return Answer(int(status.split(" ", 1)[0]), _raw(headers), rest)


def _raw(headers: Iterable[tuple[str, str]]) -> Headers:
    """As ASGI has them."""
    return [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers]


def environ_of(scope: Scope, body: IO[bytes], size: int) -> Environ:
    """The WSGI environment of a request whose body, of `size` bytes, has been read.

    The size stands in for `Content-Length` and `Transfer-Encoding`. Headers with an underscore in
    their name are left out: they could not be told from those with a dash, which mean something.
    """
    server = scope["server"] or ("localhost", 80)
    client = scope["client"] or ("", 0)
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "REQUEST_URI": scope["raw_path"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0].removeprefix(MAPPED),
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        if b"_" in raw_name:
            continue
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        name = name if name in UNPREFIXED else f"HTTP_{name}"
        value = raw_value.decode("latin-1")
        joint = "; " if name == "HTTP_COOKIE" else ","  # RFC 9110, 5.3; RFC 6265, 5.4
        environ[name] = f"{environ[name]}{joint}{value}" if name in environ else value
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ["CONTENT_LENGTH"] = str(size)
    return environ
