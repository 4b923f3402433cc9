"""Authentication and rate limits: who sends a request, decided before any view runs."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Flask, Response, current_app, g, request
from flask_limiter import Limiter, RateLimitExceeded
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.strategies import FixedWindowRateLimiter

from darkroom.api.auth import credentials, origin
from darkroom.api.auth.counts import Counts
from darkroom.api.auth.origin import AllowedOrigins, Proxies
from darkroom.api.errors import ProblemError, respond
from darkroom.config import AuthSettings
from darkroom.requests import Scope
from darkroom.responses import Token
from darkroom.storage.clients import Tokens, client_of

COOKIE = "darkroom_token"
CHALLENGE = 'Bearer realm="darkroom"'
PASSWORD_CHALLENGE = 'Basic realm="darkroom", charset="UTF-8"'
HOW_TO_GET_IN = (
    "pair this device with a code from `darkroom pair`, or send `Authorization: Bearer TOKEN` "
    "with a token from `darkroom token create NAME`"
)
MAX_WRONG_CODES = 100  # from everywhere within an hour: then no code that is out is good any more
COUNTED = "darkroom.counted"  # in the WSGI environment of a request that was counted already

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Caller:
    """The sender of a request.

    Attributes:
        client: the queue's name of it: `local`, `device:<id>` or `address:<ip>`.
        name: the name to show.
        token: the token that it came with, if it did.
    """

    client: str
    name: str
    scope: Scope
    token: Token | None = None

    @property
    def token_id(self) -> str | None:
        return None if self.token is None else self.token.id

    @property
    def sees(self) -> str | None:
        """The client whose jobs and pictures it may see; None is all clients."""
        return None if self.scope is Scope.OWN else self.client


LOCAL = Caller("local", "this machine", Scope.OWN)


def open_to_all(view: View) -> View:
    """Mark a view that needs no authentication. Without it, `known_caller()` is None."""
    view.open_to_all = True  # type: ignore[attr-defined]
    return view


def known_caller() -> Caller | None:
    """The caller of the current request; None if it is not authenticated."""
    found: Caller | None = g.get("caller")
    return found


def caller() -> Caller:
    """The caller of the current request.

    Raises:
        RuntimeError: it is not authenticated. Only views marked `open_to_all` run then, so one of
            them made a mistake; answering it could show another client's pictures.
    """
    found = known_caller()
    if found is None:
        raise RuntimeError(f"{request.endpoint} needs its caller, and is open to all")
    return found


def came_by_cookie() -> bool:
    """Whether the current request's caller was found by its cookie."""
    found: bool = g.by_cookie
    return found


def is_let_in(token_id: str | None, tokens: Tokens) -> bool:
    """Whether a caller still has access: its token, if it came with one, was not revoked.

    Streams ask again and again, from any thread, so that revoking a token ends them.
    """
    return token_id is None or tokens.is_good(token_id)


def require_owner() -> None:
    """Raise ProblemError 403 if the caller may not manage devices."""
    if caller().scope is not Scope.OWN:
        raise ProblemError(
            403, "scope", "Not with this token", "this is the owner's to do; use a token of theirs"
        )


class Guesses:
    """Counts wrong tokens and pairing codes: `per_minute` for each address, and in total.

    A valid token always passes: many people may share an address, or a proxy. Pairing codes are
    short, so after too many wrong ones even a valid one is refused.
    """

    def __init__(self, per_minute: int) -> None:
        self._of_address = RateLimitItemPerMinute(per_minute)
        self._of_anybody = RateLimitItemPerHour(MAX_WRONG_CODES)
        self._counts = FixedWindowRateLimiter(Counts())

    def check(self, address: str) -> None:
        """Raise ProblemError 429 if an address may not try a code now."""
        if not self._counts.test(self._of_address, address):
            raise self._too_many(self._of_address, address)

    def count(self, address: str) -> None:
        """Count a wrong token or code of an address. ProblemError 429 if there were too many."""
        if not self._counts.hit(self._of_address, address):
            raise self._too_many(self._of_address, address)

    def count_code(self) -> bool:
        """Count a wrong code from any address. Returns whether all codes must be dropped now."""
        if self._counts.hit(self._of_anybody):
            return False
        self._counts.clear(self._of_anybody)
        return True

    def _too_many(self, limit: RateLimitItem, address: str) -> ProblemError:
        return ProblemError(
            429,
            "too-many-failures",
            "Wrong too often",
            "too many wrong tokens or codes came from your address; wait before the next",
            headers=_retry_after(self._counts.get_window_stats(limit, address).reset_time),
        )


class Authenticator:
    """Finds the caller of each request. A proxy is none, though it may be on this machine."""

    def __init__(
        self,
        tokens: Tokens,
        guesses: Guesses,
        settings: AuthSettings,
        proxies: Proxies,
        pages: AllowedOrigins,
    ) -> None:
        self._tokens = tokens
        self._guesses = guesses
        self._settings = settings
        self._proxies = proxies
        self._pages = pages
        self._names = origin.names_of_this_machine(settings.host_names)

    def check(self) -> None:
        """Set `g.caller` of the current request, or refuse it with ProblemError 401, 403 or 429.

        A secret that is no token changes nothing for a caller who needs none: many programs insist
        on a key, or send an empty one. Only what looks like a token is refused then, so that a
        person notices that theirs was revoked.
        """
        foreign = origin.is_foreign(request.headers, request.scheme)
        secrets = credentials.secrets_in(request, foreign=foreign)
        refused = secrets if self._settings.enabled else []
        who = self._by_secrets(secrets)
        if who is None and any(map(credentials.looks_like_token, refused)):
            raise self._wrong_token()
        g.by_cookie = False
        if who is None and not foreign:
            who = self._by_cookie()
            g.by_cookie = who is not None
            who = who or self._by_address()
        g.caller = who
        if who is not None or _is_open(foreign):
            return
        if refused:
            raise self._wrong_token()
        if foreign:
            page = request.headers.get("Origin", "")
            if self._pages.include(page):
                raise _unauthorized(f"a page of {page} needs a token; {HOW_TO_GET_IN}")
            raise _refuse(f"a page of {page or 'another site'} may not use this server")
        if not self._settings.enabled:
            raise _refuse(
                f"{request.host!r} is not a name of this server; use its address, or add the name "
                "to auth.host_names"
            )
        raise _unauthorized(self._why_not_trusted() + HOW_TO_GET_IN)

    def _by_secrets(self, secrets: Iterable[str]) -> Caller | None:
        found = (self._by_secret(secret) for secret in secrets)
        return next((who for who in found if who is not None), None)

    def _wrong_token(self) -> ProblemError:
        """The 401 for a secret that is no valid token, which is counted; or the 429."""
        self._guesses.count(origin.canonical(request.remote_addr))
        return _unauthorized(
            f"this token is not known here, or was revoked; {self._why_not_trusted()}"
            + HOW_TO_GET_IN,
            error=', error="invalid_token"',
        )

    def _by_cookie(self) -> Caller | None:
        """The caller by the cookie that pairing sets; a wrong one is ignored.

        It is not counted as a guess: a gallery loads dozens of pictures at once.
        """
        secret = request.cookies.get(COOKIE)
        return None if secret is None else self._by_secret(secret)

    def _by_secret(self, secret: str) -> Caller | None:
        found = self._tokens.find(secret)
        if found is None:
            return None
        return Caller(client_of(found.device), found.name, found.scope, found)

    def _by_address(self) -> Caller | None:
        address = origin.canonical(request.remote_addr)
        if self._is_here(address) and self._why_not_trusted() == "":
            return LOCAL
        if self._settings.enabled:
            return None
        host = origin.host_name(request.headers.get("Host"))
        if origin.parse(host) is None and host not in self._names:
            return None
        return Caller(f"address:{address}", address, Scope.USE)

    def _is_here(self, address: str) -> bool:
        return self._settings.trust_loopback and origin.is_loopback(address)

    def _why_not_trusted(self) -> str:
        """Why a connection from this machine is not trusted; empty if it is.

        Loopback alone proves nothing: a proxy on this machine forwards requests of others, and
        anybody's DNS name can resolve to 127.0.0.1 (rebinding).
        """
        address = origin.canonical(request.remote_addr)
        if not self._is_here(address):
            return ""
        protocol = request.environ.get("SERVER_PROTOCOL", "")
        if self._proxies.include(address) or origin.is_forwarded(request.headers, protocol):
            return "what a proxy passes on is not trusted; "
        if not origin.is_loopback(origin.host_name(request.headers.get("Host"))):
            return "without a token, this machine is reached as localhost only; "
        return ""


def _is_open(foreign: bool) -> bool:
    """Whether the current request needs no authentication; a foreign page's only for GET."""
    if request.url_rule is None or request.endpoint is None:
        return False  # whether a path exists is not public either
    if request.method == "OPTIONS":
        return getattr(request.url_rule, "provide_automatic_options", False) is True
    if foreign and request.method not in ("GET", "HEAD"):
        return False
    return getattr(current_app.view_functions[request.endpoint], "open_to_all", False) is True


def _refuse(detail: str) -> ProblemError:
    return ProblemError(403, "door", "Not from here", detail)


def _unauthorized(detail: str, error: str = "") -> ProblemError:
    """A 401. Browsers would answer a Basic challenge with a password dialog over our page."""
    challenge = CHALLENGE + error
    if not origin.is_browser(request.headers):
        challenge += f", {PASSWORD_CHALLENGE}"
    headers = {"WWW-Authenticate": challenge}
    return ProblemError(401, "token", "A token is needed", detail, headers=headers)


def _retry_after(reset_at: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(reset_at - time.time())))}


def _asker() -> str:
    who = known_caller()
    return who.client if who is not None else f"address:{origin.canonical(request.remote_addr)}"


def _is_free() -> bool:
    """Whether the current request is not counted.

    Local programs could load the machine without us; liveness checks must not fail.
    """
    is_counted = request.environ.get(COUNTED, False)
    return is_counted or _asker() == LOCAL.client or request.endpoint == "system.healthz"


def install(app: Flask, authenticator: Authenticator, per_minute: int) -> None:
    """Authenticate every request, and limit those of each device, or each address without one."""
    app.before_request(authenticator.check)
    open_to_all(app.view_functions["static"])
    limiter = Limiter(
        _asker,
        app=app,
        application_limits=[f"{per_minute}/minute"],
        application_limits_exempt_when=_is_free,
        storage_uri=f"{Counts.STORAGE_SCHEME[0]}://",
        strategy="fixed-window",
    )

    @app.errorhandler(RateLimitExceeded)
    def on_too_many(_error: RateLimitExceeded) -> Response:
        limit = limiter.current_limit
        detail = f"{per_minute} a minute are answered; wait before the next"
        problem = ProblemError(429, "too-many-requests", "Too many requests", detail).problem
        return respond(problem, _retry_after(limit.reset_at if limit else 0.0))
