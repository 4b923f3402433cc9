"""Counts requests in memory, for the rate limits."""

import threading
from typing import Any

from limits.storage import MemoryStorage


class Counts(MemoryStorage):
    """`MemoryStorage`, one thread at a time, its timer's among them.

    That of `limits` 5.8 starts its timer twice if two threads count at once, which raises
    RuntimeError, and may forget a count (https://github.com/alisaifee/limits/pull/352).
    """

    STORAGE_SCHEME = ["counts"]  # noqa: RUF012 - as the base class declares it

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any):
        self._lock = threading.RLock()  # counting reads, too
        super().__init__(uri, wrap_exceptions, **options)

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        with self._lock:
            return super().incr(key, expiry, amount)

    def get(self, key: str) -> int:
        with self._lock:
            return super().get(key)

    def _MemoryStorage__expire_events(self) -> None:  # noqa: N802 - as Python mangles it
        with self._lock:
            super()._MemoryStorage__expire_events()  # type: ignore[misc]

    def clear(self, key: str) -> None:
        with self._lock:
            super().clear(key)
