"""Running the application under gunicorn: one process, many threads.

One process, because one event tail serves all who wait; threads, because a waiting caller or an
open event stream costs one each and does nothing.
"""

from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from darkroom.config import Settings
from darkroom.web.app import create_app


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn with our settings and no command line of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": [address(self._settings.host, self._settings.port)],
            "workers": 1,
            "worker_class": "gthread",
            "threads": self._settings.web.threads,
            "keepalive": 30,
            "graceful_timeout": int(self._settings.queue.shutdown_timeout_s),
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return create_app(self._settings)


def address(host: str, port: int) -> str:
    """What gunicorn binds; IPv6 addresses stand in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
