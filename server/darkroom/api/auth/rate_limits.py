"""Limits of requests, and of wrong tokens and pairing codes."""

import math
import time

from flask import Flask, Response, g, request
from flask_limiter import Limiter, RateLimitExceeded
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from darkroom.api import errors
from darkroom.api.auth import origin
from darkroom.api.errors import ProblemError

MAX_WRONG_CODES = 100  # from everywhere within an hour: then no code that is out is good any more

ANYBODY = "anybody"
COUNTED = "darkroom.counted"  # in the WSGI environment of a request that was counted already


class Guesses:
    """Counts wrong tokens and pairing codes, for each address and in total.

    A valid token always passes: many people may share an address, or a proxy. Pairing codes are
    short, so after too many wrong ones even a valid one is refused.

    Args:
        per_minute: wrong ones that an address may send in a minute.
    """

    def __init__(self, per_minute: int) -> None:
        self._of_address = RateLimitItemPerMinute(per_minute)
        self._of_anybody = RateLimitItemPerHour(MAX_WRONG_CODES)
        self._counts = FixedWindowRateLimiter(MemoryStorage())

    def check(self, address: str) -> None:
        """Check that an address may try a code.

        Raises:
            ProblemError: 429.
        """
        if not self._counts.test(self._of_address, address):
            raise self._too_many(self._of_address, address)

    def count(self, address: str) -> None:
        """Count a wrong token or code of an address.

        Raises:
            ProblemError: 429, there were too many.
        """
        if not self._counts.hit(self._of_address, address):
            raise self._too_many(self._of_address, address)

    def count_code(self) -> bool:
        """Count a wrong code from any address. Returns whether all codes must be dropped now."""
        if self._counts.hit(self._of_anybody, ANYBODY):
            return False
        self._counts.clear(self._of_anybody, ANYBODY)
        return True

    def _too_many(self, limit: RateLimitItem, address: str) -> ProblemError:
        reset_at = self._counts.get_window_stats(limit, address).reset_time
        return ProblemError(
            429,
            "too-many-failures",
            "Wrong too often",
            "too many wrong tokens or codes came from your address; wait before the next",
            headers=_retry_after(reset_at),
        )


def _retry_after(reset_at: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(reset_at - time.time())))}


def _asker() -> str:
    who = g.get("caller")
    return who.client if who is not None else f"address:{origin.canonical(request.remote_addr)}"


def _is_free() -> bool:
    """Whether the current request is not counted.

    Local programs could load the machine without us; liveness checks must not fail.
    """
    is_counted = request.environ.get(COUNTED, False)
    return is_counted or _asker() == "local" or request.endpoint == "system.healthz"


def install(app: Flask, per_minute: int) -> None:
    """Limit requests of each token, or of each address without one. Needs `g.caller`."""
    limiter = Limiter(
        _asker,
        app=app,
        application_limits=[f"{per_minute}/minute"],
        application_limits_exempt_when=_is_free,
        storage_uri="memory://",
        strategy="fixed-window",
    )

    @app.errorhandler(RateLimitExceeded)
    def on_too_many(_error: RateLimitExceeded) -> Response:
        limit = limiter.current_limit
        problem = ProblemError(
            429,
            "too-many-requests",
            "Too many requests",
            f"{per_minute} a minute are answered; wait before the next",
        ).problem
        return errors.respond(problem, _retry_after(limit.reset_at if limit else 0.0))
