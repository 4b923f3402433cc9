"""The ASGI application: Flask in threads, and on the event loop all that only waits.

A request is read on the loop, body and all, before it takes a thread, and its thread is free again
before the answer is sent. So neither a slow caller nor one who waits for a job holds one.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from contextvars import Context, copy_context
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from darkroom.api.auth.proxies import Proxies
from darkroom.asgi.bodies import Bodies, CallerGoneError, may_be_large
from darkroom.asgi.environ import Environ, environ_of
from darkroom.asgi.refusal import TurnedAwayError
from darkroom.asgi.streams import Streams
from darkroom.asgi.threads import Threads
from darkroom.asgi.wait import Application, DeferredResponse, EventStream, PendingResponse, WsgiApp
from darkroom.config import Settings

WRITE_BYTES = 2**16  # sent at once, so that a reader is seen to read
AHEAD_BYTES = 2**20  # of an answer, made before the first are sent
LARGE_SHARE = 4  # a thread for requests with pictures comes with so many for the others


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Attributes:
        status: HTTP status.
        headers: names in lower case.
        rest: how it goes on.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    rest: "Chunks | DeferredResponse"


class Chunks:
    """A WSGI answer's body, made in threads, a good piece at a time.

    Attributes:
        ready: the piece that was made last.
        more: whether there may be another.
    """

    def __init__(self, body: Any) -> None:
        self.ready = b""
        self.more = True
        self._body = body
        self._chunks: Iterator[bytes] = iter(body)

    def prepare(self) -> None:
        """Make the next piece."""
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


class Gateway:
    """Serves a Flask application.

    Args:
        app: whose answers may be suspended.
        streams: of the events that suspended answers wait for.
        settings: for limits, and where bodies may lie.
    """

    def __init__(self, app: Application, streams: Streams, settings: Settings) -> None:
        self._app = app
        self._streams = streams
        self._threads = Threads(settings.web.threads, "web")
        few = max(1, settings.web.threads // LARGE_SHARE)
        self._uploads = Threads(few, "uploads")
        self._bodies = Bodies(settings.web, settings.data_dir, self._uploads)
        self._proxies = Proxies(settings.web.trusted_proxies)
        self._background: asyncio.Task[None] | None = None

    async def __call__(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Answer a request.

        Raises:
            RefusedError: its body cannot be taken, or is not wanted from who sends it.
            TooSlowError: who listens does not keep up.
        """
        scope = self._proxies.look_behind(scope)
        context = copy_context()  # the request's own, in whichever threads it is worked on
        if may_be_large(scope):
            await self._authorize_headers(scope, context)
        try:
            body = await self._bodies.read(scope, receive)
        except CallerGoneError:
            return
        environ = environ_of(scope, body.file, body.size)
        threads = self._threads if body.is_small else self._uploads
        try:
            answer = await threads.run(context.run, _ask, self._app.wsgi_app, environ)
        finally:
            body.close()
        while isinstance(answer.rest, PendingResponse):  # one job may lead to the next
            waited = await self._wait(answer.rest, context, environ, receive)
            if waited is None:
                return
            answer = waited
        await send(
            {"type": "http.response.start", "status": answer.status, "headers": answer.headers}
        )
        if isinstance(answer.rest, EventStream):
            await self._stream(answer.rest, receive, send)
        elif isinstance(answer.rest, Chunks):
            await self._send(answer.rest, send)

    def start(self) -> None:
        """Begin, on the running loop."""
        self._background = asyncio.create_task(self._streams.run(self._threads))

    def stop(self) -> None:
        """End what waits: callers get an answer, listeners their stream's end."""
        self._streams.stop()

    def close(self) -> None:
        """Free the threads."""
        if self._background is not None:
            self._background.cancel()
        self._threads.close()
        self._uploads.close()

    async def _authorize_headers(self, scope: HTTPScope, context: Context) -> None:
        """Ask the door before a large body is read: strangers may not fill the disk.

        Raises:
            TurnedAwayError: it stays shut.
        """
        environ = environ_of(scope, BytesIO(), 0)
        answer = await self._threads.run(context.run, self._app.authorize_headers, environ)
        if answer is not None:
            raise TurnedAwayError(answer.status_code, _raw(answer.headers), answer.get_data())

    async def _wait(
        self,
        waiting: PendingResponse,
        context: Context,
        environ: Environ,
        receive: ASGIReceiveCallable,
    ) -> Answer | None:
        """The answer when it is due; None if nobody waits for it any more."""
        with self._streams.ending(waiting.job_id) as ended:
            if not await self._threads.run(context.run, waiting.has_ended):
                gone = asyncio.create_task(_gone(receive))
                try:
                    await asyncio.wait(
                        {ended, gone},
                        timeout=waiting.patience_s(),
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    gone.cancel()
                if gone.done():
                    await self._threads.run(context.run, waiting.abandon)
                    return None
        return await self._threads.run(context.run, _ask, waiting.answer, environ)

    async def _stream(
        self, wanted: EventStream, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        gone = asyncio.create_task(_gone(receive))
        try:
            async with aclosing(self._streams.play(wanted, self._threads, gone)) as pieces:
                async for data in pieces:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            gone.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, chunks: Chunks, send: ASGISendCallable) -> None:
        try:
            while True:
                for start in range(0, len(chunks.ready), WRITE_BYTES):
                    data = chunks.ready[start : start + WRITE_BYTES]
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                if not chunks.more:
                    break
                await self._threads.run(chunks.prepare)
        finally:
            chunks.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _ask(app: WsgiApp, environ: Environ) -> Answer:
    """What a WSGI application answers, the first bytes made. Runs in a thread."""
    began: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _error: Any = None) -> None:
        began[:] = [(status, headers)]

    body = app(environ, start_response)
    rest = body if isinstance(body, DeferredResponse) else Chunks(body)
    if isinstance(rest, Chunks):
        rest.prepare()
    ((status, headers),) = began
    return Answer(int(status.split(" ", 1)[0]), _raw(headers), rest)


def _raw(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """As ASGI has them."""
    return [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers]


async def _gone(receive: ASGIReceiveCallable) -> None:
    """Until the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
