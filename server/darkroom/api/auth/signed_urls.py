"""Signed URLs of single pictures, which need no token and expire after an hour."""

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from darkroom.storage.files import write_key
from darkroom.storage.shared_keys import Agree, alone

log = structlog.get_logger()

KEY_BYTES = 32
LIFETIME_S = 3600  # as long as OpenAI's addresses last


class Signatures:
    """Signs and checks URLs of pictures. Safe to use from any thread.

    Both raise OSError if the key cannot be read, or there is no space for it, and what `agree`
    raises.

    Args:
        key_path: file of the key, made when it is first needed, for this user only. Without the
            key, all URLs signed with it are invalid.
        clock: seconds since the epoch.
        agree: see `shared_keys`.
    """

    def __init__(
        self, key_path: Path, clock: Callable[[], float] = time.time, agree: Agree = alone
    ) -> None:
        self._key_path = key_path
        self._clock = clock
        self._agree = agree
        self._lock = threading.Lock()
        self._key: bytes | None = None

    def sign(self, name: str) -> str:
        """The query string of a URL for `name`, valid from now until it expires."""
        expires = int(self._clock()) + LIFETIME_S
        return f"expires={expires}&signature={self._signature(name, expires)}"

    def left_s(self, name: str, expires: int, signature: str) -> int:
        """Seconds that a URL is still valid; 0 if it has expired or its signature is wrong."""
        right = self._signature(name, expires)
        if not hmac.compare_digest(right.encode(), signature.encode()):
            return 0
        return max(0, expires - int(self._clock()))

    def _signature(self, name: str, expires: int) -> str:
        with self._lock:
            if self._key is None:
                self._key = self._agree(self._key_path, _find_key(self._key_path))
        digest = hmac.digest(self._key, f"{name}\n{expires}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _find_key(path: Path) -> bytes:
    """The key in a file. One that is missing or damaged is replaced."""
    if path.exists():
        key = path.read_bytes()
        if len(key) == KEY_BYTES:
            return key
        log.warning("the key of signed addresses is damaged; another one is made", path=str(path))
    key = secrets.token_bytes(KEY_BYTES)
    write_key(path, key)
    return key
