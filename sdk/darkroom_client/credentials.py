"""The tokens that `pair` got, in a file of this user's own.

A token belongs to one address: no other server ever gets to see it.
"""

import json
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import httpx2

from darkroom_client.core.errors import DarkroomError

VARIABLE = "DARKROOM_CREDENTIALS"
DEFAULT_URL = "http://localhost:7860"
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class CredentialsError(DarkroomError):
    """The credentials file cannot be used as it is; the message says why and what to do."""


@dataclass(frozen=True)
class Credentials:
    """What is in the file.

    Attributes:
        default: base URL of the server that this user paired with last, or None.
        tokens: by base URL, as `origin` writes them.
    """

    default: str | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)


def origin(url: str) -> str:
    """A base URL in the one form under which its token is kept.

    Raises:
        ValueError: it is not an http or https address.
    """
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is no address of a server; one is {DEFAULT_URL}")
    return str(parsed.copy_with(query=None, fragment=None)).rstrip("/")


def path() -> Path:
    """Of the file: DARKROOM_CREDENTIALS names it, else it is where this platform keeps settings.

    Raises:
        CredentialsError: this user has no home.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    try:
        home = Path.home()
    except RuntimeError:
        raise CredentialsError(f"this user has no home; set {VARIABLE} to a file") from None
    if sys.platform == "win32":
        folder = Path(os.environ.get("APPDATA") or home / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        folder = home / "Library" / "Application Support"
    else:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return folder / "darkroom" / "credentials.json"


def resolve(base_url: str | None, token: str | None) -> tuple[str, str | None]:
    """The server that is meant, and this device's token for it, if there is one.

    What is given counts, then the environment (DARKROOM_URL, DARKROOM_TOKEN), then the file.

    Raises:
        CredentialsError: the file is needed and cannot be used.
        ValueError: the address is not an http or https one.
    """
    url = base_url or os.environ.get("DARKROOM_URL")
    token = token or os.environ.get("DARKROOM_TOKEN")
    if url and token:
        return origin(url), token
    kept = load()
    server = origin(url or kept.default or DEFAULT_URL)
    return server, token or kept.tokens.get(server)


def load() -> Credentials:
    """What is kept; nothing when there is no file.

    Raises:
        CredentialsError: other users may read or write the file, or it holds something else.
    """
    file = path()
    try:
        with file.open(encoding="utf-8") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if os.name == "posix" and mode & OTHERS:
                raise CredentialsError(f"others may read {file}: chmod 600 it, or pair again")
            data = json.load(opened)
        tokens = {str(url): str(token) for url, token in data["tokens"].items()}
        return Credentials(data["default"], MappingProxyType(tokens))
    except FileNotFoundError:
        return Credentials()
    except OSError as error:
        raise CredentialsError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CredentialsError(f"{file} holds no credentials; delete it and pair again") from error


def remember(url: str, token: str) -> Path:
    """Keep a server's token, and make it the server that is taken when none is named.

    Raises:
        CredentialsError: the file that is there cannot be used, or not be replaced.
        ValueError: `url` is not an http or https address.
    """
    kept, server = load(), origin(url)
    _write(replace(kept, default=server, tokens={**kept.tokens, server: token}))
    return path()


def _write(credentials: Credentials) -> None:
    """All or nothing, and never readable by others, not even while it is written."""
    file = path()
    data = {"default": credentials.default, "tokens": dict(credentials.tokens)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=file.parent, prefix=".credentials-")  # mode 0600
    except OSError as error:
        raise CredentialsError(f"cannot write {file}: {error.strerror}") from error
    try:
        with open(number, "w", encoding="utf-8") as opened:  # noqa: PTH123
            json.dump(data, opened, indent=2)
            opened.flush()
            os.fsync(number)
        Path(name).replace(file)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise CredentialsError(f"cannot write {file}: {error.strerror}") from error
