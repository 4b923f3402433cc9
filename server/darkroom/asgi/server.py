"""The web process: gunicorn's ASGI worker on one event loop, Flask behind a bridge in threads.

The worker runs in this process, without gunicorn's arbiter: docs/architecture.md says why.
"""

import asyncio
import contextlib
import math
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.gasgi import ASGIWorker

from darkroom.api.app import create_app
from darkroom.api.context import context_of
from darkroom.asgi.bridge import Bridge
from darkroom.asgi.connection import SPARE_CONNECTIONS, Connection
from darkroom.config import Settings
from darkroom.queue.doorbell import Tail
from darkroom.responses import Event

BACKLOG = 2048
NEVER_S = 2**31  # for times that connection.py measures itself
SWITCH_S = 0.001  # Python's 5 ms are long for an event loop beside threads
OTHER_FILES = 256  # open at once beside connections: database, pictures, libraries
LOOK_S = 0.05  # between two looks at whether all connections have ended


class Log(Logger):  # type: ignore[misc]
    """gunicorn's log, whose lines go to the handlers that the process has anyway."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class Worker(ASGIWorker):  # type: ignore[misc]
    """gunicorn's ASGI worker, with the limits of `Connection` and an orderly stop.

    Args:
        settings: of the server.
        listening: the socket to accept connections from.
        certificate: PEM files of the certificate and its key, to speak TLS.

    Attributes:
        connections: that are open.
        calls: of the application that have not returned.
    """

    def __init__(
        self,
        settings: Settings,
        listening: socket.socket,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        config = _gunicorn_config(settings)
        super().__init__(0, os.getppid(), [listening], None, None, config, Log(config))
        self.connections: set[Connection] = set()
        self.calls: set[asyncio.Task[None]] = set()
        self._settings = settings
        self._listening = listening
        self._certificate = certificate

    def init_signals(self) -> None:
        """Leave signals as they are until the event loop runs."""

    def load_wsgi(self) -> None:
        """Create the application."""
        app = create_app(self._settings)
        self._context = context_of(app)
        self.asgi = Bridge(app, self._context.streams, self._settings)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; a second one ends what is still answered."""
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve_events())

    async def _serve_events(self) -> None:
        """Serve, with the event log followed, webhooks sent and files hashed meanwhile."""
        here = self._context

        def publish(events: Sequence[Event]) -> None:
            here.streams.publish(events, self.loop)
            here.webhook_sender.hear(events)

        with here.doorbells.listen("web") as bell:
            tail = Tail(here.store, bell, self._settings.queue.poll_s, publish)
            tail.start()
            here.webhook_sender.start()
            here.puller.start()
            if self._settings.models.hashes:
                here.hashes.start()
            async with self.asgi.running():
                try:
                    await self._serve_connections()
                finally:
                    await asyncio.to_thread(here.hashes.stop)
                    await asyncio.to_thread(here.puller.stop)
                    await asyncio.to_thread(tail.stop)
                    await asyncio.to_thread(here.webhook_sender.stop)

    async def _serve_connections(self) -> None:
        limits = self._settings.web
        tls = None
        if self._certificate is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(*self._certificate)
        stopping, hurrying = asyncio.Event(), asyncio.Event()

        def stop() -> None:
            (hurrying if stopping.is_set() else stopping).set()

        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, stop)
        server = await self.loop.create_server(
            lambda: Connection(self, limits),
            sock=self._listening,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else limits.header_timeout_s,
        )
        await stopping.wait()
        self.alive = False
        self._context.streams.stop()
        server.close()
        for connection in tuple(self.connections):
            connection.shut_down()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(math.ceil(self._settings.queue.shutdown_timeout_s)):
                while (self.connections or self.calls) and not hurrying.is_set():
                    await asyncio.sleep(LOOK_S)
        for call in tuple(self.calls):
            call.cancel()


def run(settings: Settings, certificate: tuple[Path, Path] | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: of the server.
        certificate: PEM files, see `Worker`.

    Raises:
        SystemExit: a signal came before the event loop ran, or the address is not free.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _allow_files(settings.web.max_connections + SPARE_CONNECTIONS + OTHER_FILES)
    sys.setswitchinterval(SWITCH_S)
    with _listen(settings.host, settings.port) as listening:
        Worker(settings, listening, certificate).init_process()


def _gunicorn_config(settings: Settings) -> Config:
    config = Config()
    for name, value in {
        "asgi_loop": "asyncio",
        "http_parser": "python",
        "permit_unconventional_http_method": True,  # Flask answers 405
        "limit_request_line": settings.web.max_header_bytes,
        "limit_request_field_size": settings.web.max_header_bytes,
        "forwarded_allow_ips": "",  # the bridge asks api/auth/origin.py
        "secure_scheme_headers": {},
        "keepalive": NEVER_S,
        "timeout": NEVER_S,
        "asgi_disconnect_grace_period": 0,  # calls are shielded, see Connection
        "loglevel": "error",
    }.items():
        config.set(name, value)
    return config


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; on `::` one for both families, where the system has such.

    Raises:
        SystemExit: the address is not free, or not ours.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        both = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        sys.exit(f"darkroom: cannot listen on {host} port {port}: {error.strerror}")


def _allow_files(needed: int) -> None:
    """Raise this process's limit of open files, as far as it may be, if it is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        higher = hard if hard != resource.RLIM_INFINITY else needed
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(needed, higher)), hard))
