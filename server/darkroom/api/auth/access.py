"""Authentication: who sends a request, decided before any view runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Flask, current_app, g, request

from darkroom.api.auth import origin
from darkroom.api.auth.origin import Proxies
from darkroom.api.auth.rate_limits import Guesses
from darkroom.api.context import context
from darkroom.api.errors import ProblemError
from darkroom.config import AuthSettings
from darkroom.requests import Scope
from darkroom.storage.clients import Tokens

COOKIE = "darkroom_token"
CHALLENGE = 'Bearer realm="darkroom"'
PASSWORD_CHALLENGE = 'Basic realm="darkroom", charset="UTF-8"'
HOW_TO_GET_IN = (
    "pair this device with a code from `darkroom pair`, or send `Authorization: Bearer TOKEN` "
    "with a token from `darkroom token create NAME`"
)

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Caller:
    """The sender of a request.

    Attributes:
        client: the queue's name of it: `local`, `token:<id>` or `address:<ip>`.
        name: the name to show.
        scope: what it may do.
    """

    client: str
    name: str
    scope: Scope

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


def may_stay() -> Callable[[], bool]:
    """Makes a check whether the current caller's token is still valid, callable from any thread.

    Streams call it again and again, so that revoking a token ends them.
    """
    client, tokens = caller().client, context().tokens
    return lambda: _is_let_in(client, tokens)


def is_let_in(client: str) -> bool:
    """Whether a client of the queue still has access: its token was not revoked."""
    return _is_let_in(client, context().tokens)


def _is_let_in(client: str, tokens: Tokens) -> bool:
    kind, _, token_id = client.partition(":")
    return kind != "token" or tokens.is_good(token_id)


def require_owner() -> None:
    """Check that the caller may manage devices.

    Raises:
        ProblemError: 403.
    """
    if caller().scope is not Scope.OWN:
        raise ProblemError(
            403, "scope", "Not with this token", "this is the owner's to do; use a token of theirs"
        )


class Authenticator:
    """Finds the caller of each request.

    Args:
        tokens: the valid ones.
        guesses: counts wrong ones.
        settings: who needs no token.
        proxies: never trusted as callers, though they may be on this machine.
    """

    def __init__(
        self, tokens: Tokens, guesses: Guesses, settings: AuthSettings, proxies: Proxies
    ) -> None:
        self._tokens = tokens
        self._guesses = guesses
        self._settings = settings
        self._proxies = proxies
        self._names = origin.names_of_this_machine(settings.host_names)

    def check(self) -> None:
        """Set `g.caller` of the current request, or refuse the request.

        Raises:
            ProblemError: 401, 403 or 429.
        """
        foreign = origin.is_foreign(request.headers, request.scheme)
        who = self._by_header(foreign)
        if who is None and not foreign:
            who = self._by_cookie() or self._by_address()
        g.caller = who
        if who is not None or _is_open(foreign):
            return
        if foreign:
            page = request.headers.get("Origin", "another site")
            raise _refuse(f"a page of {page} may not use this server")
        if not self._settings.enabled:
            raise _refuse(
                f"{request.host!r} is not a name of this server; use its address, or add the name "
                "to auth.host_names"
            )
        raise _unauthorized(self._why_not_trusted() + HOW_TO_GET_IN)

    def _by_header(self, foreign: bool) -> Caller | None:
        """The caller by `Authorization`, which only a program can have set.

        A browser that knows a password sends it by itself, wherever the request comes from
        (Fetch standard, HTTP-network-or-cache fetch), so Basic proves nothing of a foreign page's.
        """
        given = request.headers.get("Authorization")
        if given is None:
            return None
        scheme, _, secret = given.partition(" ")
        if scheme.lower() == "basic":
            if foreign:
                return None
            secret = (request.authorization and request.authorization.password) or ""
        found = self._by_secret(secret.strip())
        if found is None:
            self._guesses.count(origin.canonical(request.remote_addr))
            raise _unauthorized(
                f"this token is not known here, or was revoked; {HOW_TO_GET_IN}",
                error=', error="invalid_token"',
            )
        return found

    def _by_cookie(self) -> Caller | None:
        """The caller by the cookie that pairing sets; a wrong one is ignored.

        It is not counted as a guess: a gallery loads dozens of pictures at once.
        """
        secret = request.cookies.get(COOKIE)
        return None if secret is None else self._by_secret(secret)

    def _by_secret(self, secret: str) -> Caller | None:
        found = self._tokens.find(secret)
        return None if found is None else Caller(f"token:{found.id}", found.name, found.scope)

    def _by_address(self) -> Caller | None:
        address = origin.canonical(request.remote_addr)
        if self._is_here(address) and self._why_not_trusted() == "":
            return LOCAL
        if self._settings.enabled:
            return None
        host = origin.host_name(request.headers.get("Host"))
        if not origin.is_address(host) and host not in self._names:
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


def install(app: Flask, authenticator: Authenticator) -> None:
    """Authenticate every request, also those for Flask's own views."""
    app.before_request(authenticator.check)
    open_to_all(app.view_functions["static"])
