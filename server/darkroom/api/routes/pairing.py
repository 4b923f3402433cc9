"""/pair: how a device gets its token; /me: what it is then."""

import segno
from flask import Blueprint, Response, request

from darkroom.api.auth import access, origin
from darkroom.api.context import context
from darkroom.api.errors import ProblemError
from darkroom.api.openapi import route
from darkroom.api.render import send_model
from darkroom.ops import addresses
from darkroom.requests import CodeRequest, PairRequest
from darkroom.responses import IssuedToken, Me, PairingCode, Problem
from darkroom.storage.records import timestamp

blueprint = Blueprint("pairing", __name__)

COOKIE_S = 400 * 24 * 3600  # the longest that browsers keep one (RFC 6265bis, section 5.5)


@route(
    blueprint,
    "POST",
    "/pair",
    json=PairRequest,
    answers={200: IssuedToken, 400: Problem, 413: Problem, 415: Problem, 422: Problem},
    public=True,
    tag="door",
)
@access.open_to_all
def pair() -> Response:
    """Turn a pairing code into this device's token. Needs no token.

    A browser gets the token as a cookie too, which scripts cannot read.
    """
    here = context()
    asked = here.bodies.read_json(PairRequest)
    address = origin.canonical(request.remote_addr)
    here.guesses.check(address)
    issued = here.tokens.redeem(asked.code, asked.name)
    if issued is None:
        if here.guesses.count_code():
            here.tokens.drop_codes()
        here.guesses.count(address)
        raise ProblemError(
            403,
            "pairing-code",
            "Not a good code",
            "this code is wrong, was used before, or is too old; `darkroom pair` makes a new one",
        )
    token, secret = issued
    response = send_model(IssuedToken(**token.model_dump(), token=secret))
    remember(response, secret)
    return response


@route(
    blueprint,
    "POST",
    "/pair/codes",
    json=CodeRequest,
    answers={201: PairingCode, 400: Problem, 413: Problem, 415: Problem, 422: Problem},
    tag="door",
)
def make_code() -> Response:
    """A pairing code for one more device. For owners."""
    access.require_owner()
    here = context()
    scope = here.bodies.read_json(CodeRequest).scope
    code, expires_at = here.tokens.new_code(scope, here.settings.auth.pairing_code_s)
    expires = timestamp(expires_at)
    assert expires is not None
    url = addresses.pairing_url(_base_url(), code)
    qr = segno.make(url, error="l", micro=False).svg_data_uri(scale=8, light="white")
    return send_model(PairingCode(code=code, scope=scope, url=url, qr=qr, expires_at=expires), 201)


@route(
    blueprint,
    "GET",
    "/me",
    answers={200: Me},
    tag="door",
)
def me() -> Response:
    """Who I am to this server. A browser's cookie lives longer by it."""
    who = access.caller()
    response = send_model(Me(client=who.client, name=who.name, scope=who.scope))
    if "Authorization" not in request.headers and who.client.startswith("token:"):
        remember(response, request.cookies[access.COOKIE])
    return response


def remember(response: Response, secret: str) -> None:
    """Leave a token in a browser. Scripts cannot read it, and other sites cannot make it be sent.

    What TLS it came over may have ended at a proxy; then the page's origin still says https.
    """
    response.set_cookie(
        access.COOKIE,
        secret,
        max_age=COOKIE_S,
        secure=request.is_secure or request.headers.get("Origin", "").startswith("https://"),
        httponly=True,
        samesite="Strict",
    )


def _base_url() -> str:
    """Where others reach this server: as the caller does, unless that is from this machine."""
    if origin.is_loopback(origin.host_name(request.headers.get("Host"))):
        return addresses.urls(context().settings)[0]
    return request.host_url.rstrip("/")
