"""Telling the owner where the server is, once it is there."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

import structlog

from darkroom.config import Settings
from darkroom.ops import addresses, health

log = structlog.get_logger()

LOOK_EVERY_S = 0.1


class StartupNotice:
    """Inside, the owner is told when web answers and when the model is loaded, each once.

    Args:
        settings: of the server.
        say: prints a line for the owner.
        welcome: tells the owner more once web answers.
    """

    def __init__(
        self, settings: Settings, say: Callable[[str], None], welcome: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._say = say
        self._welcome = welcome
        self._stopping = threading.Event()

    def __enter__(self) -> "StartupNotice":
        threading.Thread(target=self._run, name="startup_notice", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()

    def _run(self) -> None:
        began = time.monotonic()
        base = addresses.local_url(self._settings)
        for path, words in (
            ("/healthz", f"Darkroom is at {base}"),
            ("/readyz", "Ready: pictures develop from here on"),
        ):
            while not health.answers(self._settings, path):
                if self._stopping.wait(LOOK_EVERY_S):
                    return
            self._say(f"{words}  ({time.monotonic() - began:.1f} s)")
            if path == "/healthz":
                try:
                    self._welcome()
                except Exception:  # a full disk has no room for a code; the server serves without
                    log.exception("no device can be invited")
