"""/pair, /me and /tokens: how devices get and lose tokens. /ca: the certificate to install."""

import segno
from flask import Blueprint, Response, request

from darkroom.api.auth import access, origin, tls
from darkroom.api.context import context
from darkroom.api.errors import ProblemError, not_found
from darkroom.api.http import send_model
from darkroom.api.openapi import Operation, route
from darkroom.ops import discovery
from darkroom.requests import CodeRequest, PairRequest, TokenRequest
from darkroom.responses import IssuedToken, Me, PairingCode, TokenList
from darkroom.storage.records import timestamp

blueprint = Blueprint("devices", __name__)

COOKIE_S = 400 * 24 * 3600  # the longest that browsers keep one (RFC 6265bis, section 5.5)


@route(blueprint, "POST", "/pair", Operation({200: IssuedToken}, json=PairRequest, public=True))
@access.open_to_all
def pair() -> Response:
    """Exchange a pairing code for a token of this device. Needs no token.

    The token is also set as a cookie that scripts cannot read.
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
    _set_cookie(response, secret)
    return response


@route(blueprint, "POST", "/pair/codes", Operation({201: PairingCode}, json=CodeRequest))
def make_code() -> Response:
    """Make a pairing code for another device. For owners."""
    access.require_owner()
    here = context()
    scope = here.bodies.read_json(CodeRequest).scope
    code, expires_at = here.tokens.new_code(scope, here.settings.auth.pairing_code_s)
    expires = timestamp(expires_at)
    url = discovery.pairing_url(_base_url(), code)
    qr = segno.make(url, error="l", micro=False).svg_data_uri(scale=8, light="white")
    return send_model(PairingCode(code=code, scope=scope, url=url, qr=qr, expires_at=expires), 201)


@route(blueprint, "GET", "/me", Operation({200: Me}))
def me() -> Response:
    """The caller's name and scope. Renews a browser's cookie."""
    who = access.caller()
    response = send_model(Me(client=who.client, name=who.name, scope=who.scope))
    if access.came_by_cookie():
        _set_cookie(response, request.cookies[access.COOKIE])
    return response


@route(blueprint, "GET", "/tokens", Operation({200: TokenList}))
def list_tokens() -> Response:
    """List the tokens that are valid. For owners."""
    access.require_owner()
    return send_model(TokenList(tokens=tuple(context().tokens.good())))


@route(blueprint, "POST", "/tokens", Operation({201: IssuedToken}, json=TokenRequest))
def create_token() -> Response:
    """Make a token for a program, which cannot pair. Only this answer shows it. For owners."""
    access.require_owner()
    asked = context().bodies.read_json(TokenRequest)
    token, secret = context().tokens.create(asked.name, asked.scope)
    return send_model(IssuedToken(**token.model_dump(), token=secret), 201)


@route(blueprint, "DELETE", "/tokens/<token_id>", Operation({204: None}))
def revoke_token(token_id: str) -> Response:
    """Revoke a token: one's own, or for owners any.

    The next request with it is refused.
    """
    own = access.caller().client == f"token:{token_id}"
    if not own:
        access.require_owner()
    if context().tokens.revoke(token_id) is None:
        raise not_found(f"token {token_id!r}")
    response = Response(status=204)
    if own:
        response.delete_cookie(access.COOKIE, httponly=True, samesite="Strict")
    return response


@blueprint.get("/ca")
@access.open_to_all
def show_authority() -> Response:
    """The root certificate, as PEM. The terminal shows its fingerprint, to compare."""
    settings = context().settings
    if settings.tls.mode != "local_ca":
        detail = "this server does not use tls.mode: local_ca"
        raise ProblemError(404, "no-authority", "No authority", detail)
    return Response(
        tls.authority(settings).root.read_bytes(),
        content_type="application/x-x509-ca-cert",
        headers={"Content-Disposition": 'attachment; filename="darkroom-ca.crt"'},
    )


def _set_cookie(response: Response, secret: str) -> None:
    """Set the token as a cookie that scripts cannot read and other sites cannot send.

    A proxy may have ended TLS; then the page's origin still says https.
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
    """The server's URL for other devices: the caller's, unless the caller is on this machine."""
    if origin.is_loopback(origin.host_name(request.headers.get("Host"))):
        return discovery.urls(context().settings)[0]
    return request.host_url.rstrip("/")
