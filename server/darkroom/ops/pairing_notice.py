"""What `serve` and `pair` tell the owner: where the server is, and how to let a device in."""

import io
from collections.abc import Callable

import segno

from darkroom.api.auth import tls
from darkroom.config import Settings
from darkroom.ops import addresses
from darkroom.requests import Scope
from darkroom.storage.tokens import Tokens

Say = Callable[[str], None]

OPEN_DOOR = (
    "WARNING: auth.enabled is false: everybody who reaches this address may use the server, see "
    "its models and fill its queue and disk. Set auth.enabled: true in config.yaml to shut the door"
)


def announce(settings: Settings, tokens: Tokens, say: Say, *, terminal: bool) -> None:
    """Say where the server is, and give a code to pair with.

    Who sees the terminal is the owner, so as long as there is none, the code makes one, and stands
    in logs too, where owners of containers look for it. After that a code lets its bearer use the
    server, and stands on terminals only: logs have other readers.

    Args:
        settings: of the server.
        tokens: to put the code among.
        say: prints.
        terminal: whether a person looks at what is printed, rather than a log keeps it.
    """
    local_only = addresses.is_local_only(settings.host)
    if settings.tls.mode == "local_ca":
        fingerprint = tls.authority(settings).fingerprint()
        say(f"Its root certificate is at /ca; SHA-256 {fingerprint}")
    if not settings.auth.enabled:
        if not local_only:
            say(OPEN_DOOR)
        return
    if local_only and settings.public_url is None:
        return
    for url in addresses.urls(settings):
        say(f"On the local network: {url}")
    owned = tokens.has_owner()
    if owned and not terminal:
        say("To let a device in: darkroom pair")
        return
    for_eyes = terminal or settings.log_format == "console"
    invite(settings, tokens, Scope.USE if owned else Scope.OWN, say, for_eyes=for_eyes)


def invite(settings: Settings, tokens: Tokens, scope: Scope, say: Say, *, for_eyes: bool) -> None:
    """Make a pairing code and show it, to a camera too if people look rather than programs."""
    code, _ = tokens.new_code(scope, settings.auth.pairing_code_s)
    url = addresses.pairing_url(addresses.urls(settings)[0], code)
    may = "own the server" if scope is Scope.OWN else "use the server"
    minutes = settings.auth.pairing_code_s / 60
    say(f"Pair a device that may {may}, once, within {minutes:g} minutes: {url}")
    if for_eyes:
        say(qr_code(url))
    say(f"Code: {code}")


def qr_code(text: str) -> str:
    """A QR code of half-height blocks, white on black whatever colours the terminal has."""
    out = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(out, compact=True)
    return "\n".join(f"\x1b[97;40m{line}\x1b[0m" for line in out.getvalue().splitlines())
