"""The lines that `serve`, `web` and `pair` print for the owner: addresses and pairing codes."""

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import segno
import structlog

from darkroom.api.auth import tls
from darkroom.config import Settings
from darkroom.ops import discovery
from darkroom.ops.discovery import Beacon
from darkroom.ops.watchdog import answers
from darkroom.requests import Scope
from darkroom.responses import Device
from darkroom.storage.clients import Tokens
from darkroom.storage.database import Database, place_of

log = structlog.get_logger()

Say = Callable[[str], None]

LOOK_EVERY_S = 0.1  # at first
LATER_PART = 0.05  # of the time waited so far: a model may load for minutes, or no worker be there
LONGEST_LOOK_S = 2.0
AUTH_DISABLED = (
    "WARNING: auth.enabled is false: {who} may use the server, see its models and fill its queue "
    "and disk. Set auth.enabled: true in config.yaml to require tokens"
)
EVERYBODY = "everybody who reaches this address"
EVERY_PROGRAM = "every program on this machine, and all that it passes on,"


@contextmanager
def startup_notice(settings: Settings, say: Say) -> Iterator[None]:
    """Context that says where the server is, once web answers, and when the model is loaded.

    It announces the server on the network, too. `say` prints a line.
    """
    stopping = threading.Event()
    beacon = Beacon(settings)

    def run() -> None:
        began = time.monotonic()
        for path, words in (
            ("/healthz", f"Darkroom is at {discovery.local_url(settings)}"),
            ("/readyz", "Ready: pictures develop from here on"),
        ):
            while not answers(settings, path):
                later_s = LATER_PART * (time.monotonic() - began)
                if stopping.wait(min(LOOK_EVERY_S + later_s, LONGEST_LOOK_S)):
                    return
            say(f"{words}  ({time.monotonic() - began:.1f} s)")
            if path == "/healthz":
                _welcome(settings, beacon, say)

    threading.Thread(target=run, name="startup_notice", daemon=True).start()
    try:
        yield
    finally:
        stopping.set()
        beacon.stop()


def _welcome(settings: Settings, beacon: Beacon, say: Say) -> None:
    if discovery.is_wanted(settings):
        beacon.start()
    try:
        with closing(Database(place_of(settings))) as database:
            announce(settings, Tokens(database), say, terminal=sys.stdout.isatty())
    except Exception:  # a full disk has no room for a code; the server serves without
        log.exception("no pairing code can be made")


def announce(settings: Settings, tokens: Tokens, say: Say, *, terminal: bool) -> None:
    """Print the server's addresses, and a pairing code.

    While there is no owner, the code creates one. It is printed in logs too, where owners of
    containers look for it. Later codes only let a device use the server, and are printed only
    where `say` prints to a terminal, because others may read the logs.
    """
    local_only = discovery.is_local_only(settings.host)
    if settings.tls.mode == "local_ca":
        fingerprint = tls.authority(settings).fingerprint()
        say(f"Its root certificate is at /ca; SHA-256 {fingerprint}")
    if not settings.auth.enabled:
        say(AUTH_DISABLED.format(who=EVERY_PROGRAM if local_only else EVERYBODY))
        return
    if local_only and settings.public_url is None:
        return
    for url in discovery.urls(settings):
        say(f"On the local network: {url}")
    owned = tokens.has_owner()
    if owned and not terminal:
        say("To let a device in: darkroom pair")
        return
    with_qr = terminal or settings.log_format == "console"
    invite(settings, tokens, Scope.USE if owned else Scope.OWN, say, with_qr=with_qr)


def invite(
    settings: Settings,
    tokens: Tokens,
    scope: Scope,
    say: Say,
    *,
    with_qr: bool,
    device: Device | None = None,
) -> None:
    """Make a pairing code and print it, its URL, and a QR code of the URL if asked for.

    The code is for another token of the device, or for a new device if that is None.
    """
    device_id = None if device is None else device.id
    code, _ = tokens.new_code(scope, settings.auth.pairing_code_s, device_id)
    url = discovery.pairing_url(discovery.urls(settings)[0], code)
    may = "own the server" if scope is Scope.OWN else "use the server"
    whom = f"a device that may {may}"
    if device is not None:
        whom = f"{device.name} again, which may {may} and finds its pictures"
    minutes = settings.auth.pairing_code_s / 60
    say(f"Pair {whom}, once, within {minutes:g} minutes: {url}")
    if with_qr:
        qr = io.StringIO()
        segno.make(url, error="l", micro=False).terminal(qr, compact=True)  # half-height blocks
        # White on black, whatever the terminal's colours are.
        say("\n".join(f"\x1b[97;40m{line}\x1b[0m" for line in qr.getvalue().splitlines()))
    say(f"Code: {code}")
