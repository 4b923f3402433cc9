"""Running the application: uvicorn's event loop, our connections and gateway, Flask in threads."""

import asyncio
import math
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from darkroom.api.app import create_app
from darkroom.api.context import context_of
from darkroom.asgi.gateway import Gateway
from darkroom.asgi.protocol import SPARE_CONNECTIONS, Protocol
from darkroom.config import Settings
from darkroom.queue import doorbell
from darkroom.queue.doorbell import Doorbell
from darkroom.queue.events import Tail
from darkroom.responses import Event

BACKLOG = 2048
KEEP_ALIVE_S = 30
SWITCH_S = (
    0.001  # Python's 5 ms are long for an event loop that shares the interpreter with threads
)
OTHER_FILES = 256  # open at once beside connections: database, pictures, libraries


class Server:
    """The web process.

    Args:
        settings: of all.
        certificate: PEM files of the certificate and its key, to speak TLS.
    """

    def __init__(self, settings: Settings, certificate: tuple[Path, Path] | None = None) -> None:
        self._settings = settings
        self._certificate = certificate

    def run(self) -> None:
        """Until SIGTERM or SIGINT.

        Raises:
            SystemExit: told to end before it served, or the address is not free.
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until uvicorn listens to it
        _allow_files(self._settings.web.max_connections + SPARE_CONNECTIONS + OTHER_FILES)
        sys.setswitchinterval(SWITCH_S)
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        settings = self._settings
        app = create_app(settings)
        here = context_of(app)
        gateway = Gateway(app, here.streams, settings)
        bell = Doorbell(doorbell.address(settings.data_dir, "web"))
        loop = asyncio.get_running_loop()

        def hear(events: Sequence[Event]) -> None:
            here.streams.hear(events, loop=loop)
            here.webhook_sender.hear(events)

        tail = Tail(here.store, bell, settings.queue.poll_s, hear)
        with bell, _listen(settings.host, settings.port) as listening:
            tail.start()
            here.webhook_sender.start()
            gateway.start()
            try:
                await _Listener(self._config(gateway), settings, gateway).serve([listening])
            finally:
                await asyncio.to_thread(tail.stop)
                await asyncio.to_thread(here.webhook_sender.stop)
                gateway.close()

    def _config(self, gateway: Gateway) -> uvicorn.Config:
        certificate, key = self._certificate or (None, None)
        return uvicorn.Config(
            gateway,
            http=Protocol,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,  # the gateway asks door/proxies.py, which has no wildcards
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(self._settings.queue.shutdown_timeout_s),
            h11_max_incomplete_event_size=self._settings.web.max_header_bytes,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )


class _Listener(uvicorn.Server):
    """uvicorn with our connections, which ends what waits before it waits for it to end."""

    def __init__(self, config: uvicorn.Config, settings: Settings, gateway: Gateway) -> None:
        super().__init__(config)
        self._limits = settings.web
        self._gateway = gateway

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        def connect() -> Protocol:
            return Protocol(self.config, self.server_state, self._limits)

        tls = self.config.ssl
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                connect,
                sock=listening,
                backlog=BACKLOG,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else self._limits.header_timeout_s,
            )
            for listening in sockets or []
        ]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.stop()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Without raising the signals again at the end: to be stopped is no failure."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


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
