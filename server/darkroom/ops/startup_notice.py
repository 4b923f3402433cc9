"""The lines that `serve`, `web` and `pair` print for the owner: addresses and pairing codes."""

import io
import threading
import time
from collections.abc import Callable
from types import TracebackType

import segno
import structlog

from darkroom.api.auth import tls
from darkroom.config import Settings
from darkroom.ops import addresses, health
from darkroom.requests import Scope
from darkroom.storage.clients import Tokens

log = structlog.get_logger()

Say = Callable[[str], None]

LOOK_EVERY_S = 0.1
AUTH_DISABLED = (
    "WARNING: auth.enabled is false: everybody who reaches this address may use the server, see "
    "its models and fill its queue and disk. Set auth.enabled: true in config.yaml to require "
    "tokens"
)


class StartupNotice:
    """Context in which two lines are printed: once web answers, and once the model is loaded.

    Args:
        settings: of the server.
        say: prints a line.
        welcome: prints more once web answers.
    """

    def __init__(self, settings: Settings, say: Say, welcome: Callable[[], None]) -> None:
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
                    log.exception("no pairing code can be made")


def announce(settings: Settings, tokens: Tokens, say: Say, *, terminal: bool) -> None:
    """Print the server's addresses, and a pairing code.

    While there is no owner, the code creates one. It is printed in logs too, where owners of
    containers look for it. Later codes only let a device use the server, and are printed on
    terminals only, because others may read the logs.

    Args:
        settings: of the server.
        tokens: stores the code.
        say: prints a line.
        terminal: whether the lines go to a terminal rather than a log.
    """
    local_only = addresses.is_local_only(settings.host)
    if settings.tls.mode == "local_ca":
        fingerprint = tls.authority(settings).fingerprint()
        say(f"Its root certificate is at /ca; SHA-256 {fingerprint}")
    if not settings.auth.enabled:
        if not local_only:
            say(AUTH_DISABLED)
        return
    if local_only and settings.public_url is None:
        return
    for url in addresses.urls(settings):
        say(f"On the local network: {url}")
    owned = tokens.has_owner()
    if owned and not terminal:
        say("To let a device in: darkroom pair")
        return
    with_qr = terminal or settings.log_format == "console"
    invite(settings, tokens, Scope.USE if owned else Scope.OWN, say, with_qr=with_qr)


def invite(settings: Settings, tokens: Tokens, scope: Scope, say: Say, *, with_qr: bool) -> None:
    """Make a pairing code and print it, its URL, and a QR code of the URL if asked for."""
    code, _ = tokens.new_code(scope, settings.auth.pairing_code_s)
    url = addresses.pairing_url(addresses.urls(settings)[0], code)
    may = "own the server" if scope is Scope.OWN else "use the server"
    minutes = settings.auth.pairing_code_s / 60
    say(f"Pair a device that may {may}, once, within {minutes:g} minutes: {url}")
    if with_qr:
        say(qr_code(url))
    say(f"Code: {code}")


def qr_code(text: str) -> str:
    """A QR code in half-height blocks, white on black whatever the terminal's colours are."""
    out = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(out, compact=True)
    return "\n".join(f"\x1b[97;40m{line}\x1b[0m" for line in out.getvalue().splitlines())
