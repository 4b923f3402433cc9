"""The door. Without tokens yet, only programs on this machine come in, and no web page does."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from flask import Flask, request

from darkroom.schemas import Scope
from darkroom.web.errors import ProblemError

FORWARDING = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip")


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Caller:
    """Who is asking.

    Attributes:
        client: what the queue knows them by: `local`, `token:<id>` or `address:<ip>`.
        name: for people.
        scope: what they may do.
    """

    client: str
    name: str
    scope: Scope

    @property
    def sees(self) -> str | None:
        """Whose jobs and pictures they may see; None is everybody's."""
        return None if self.scope is Scope.OWN else self.client


def caller() -> Caller:
    """Who is asking."""
    return Caller("local", "this machine", Scope.OWN)


def _refuse(detail: str) -> ProblemError:
    return ProblemError(403, "door", "Not from here", detail)


def install(app: Flask) -> None:
    """Check every request before anything else looks at it.

    Loopback alone proves nothing: a proxy on this machine forwards strangers, a DNS name of a
    stranger's can resolve to 127.0.0.1 (rebinding), and any web page may send a form to it.
    """

    @app.before_request
    def check() -> None:
        if not is_loopback(request.remote_addr or ""):
            raise _refuse("this server answers programs on its own machine only")
        for header in FORWARDING:
            if header in request.headers:
                raise _refuse(f"this server does not answer forwarded requests ({header})")
        if not is_loopback(urlsplit(f"//{request.host}").hostname or ""):
            raise _refuse(f"{request.host!r} is not a name of this server; use localhost")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise _refuse(f"a page of {origin} may not use this server")
