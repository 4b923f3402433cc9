"""/pair, /me, /devices and /tokens: who is let in, and as which device. /ca: the certificate."""

import segno
from flask import Blueprint, Response, request

from darkroom.api.auth import access, origin, tls
from darkroom.api.context import context
from darkroom.api.errors import ProblemError, invalid_field, not_found
from darkroom.api.http import send_model
from darkroom.api.openapi import Operation, route
from darkroom.ops import discovery
from darkroom.requests import CodeRequest, PairRequest, RenameRequest, Scope, TokenRequest
from darkroom.responses import Device, DeviceList, IssuedToken, Me, PairingCode, Problem, TokenList
from darkroom.storage.clients import NameTakenError
from darkroom.storage.records import timestamp

blueprint = Blueprint("devices", __name__)

COOKIE_S = 400 * 24 * 3600  # the longest that browsers keep one (RFC 6265bis, section 5.5)


@route(blueprint, "POST", "/pair", Operation({200: IssuedToken}, json=PairRequest, public=True))
@access.open_to_all
def pair() -> Response:
    """Exchange a pairing code for a token of this device. Needs no token.

    A new device gets the name, with a number if another one has it. If the code was made for a
    device, the token is one of that device, which keeps its name. The token is also set as a cookie
    that scripts cannot read.
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
    """Make a pairing code: for a new device, or for another token of one that is known. For owners.

    A device's earlier tokens stay valid: a browser and an app on its home screen each have one.
    """
    access.require_owner()
    here = context()
    asked = here.bodies.read_json(CodeRequest)
    scope = asked.scope or Scope.USE
    if asked.device is not None:
        device = here.tokens.device(asked.device)
        if device is None:
            raise invalid_field("device", f"there is no device {asked.device!r}")
        scope = asked.scope or device.scope
    lifetime_s = here.settings.auth.pairing_code_s
    code, expires_at = here.tokens.new_code(scope, lifetime_s, asked.device)
    expires = timestamp(expires_at)
    url = discovery.pairing_url(_base_url(), code)
    qr = segno.make(url, error="l", micro=False).svg_data_uri(scale=8, light="white")
    made = PairingCode(
        code=code, device=asked.device, scope=scope, url=url, qr=qr, expires_at=expires
    )
    return send_model(made, 201)


@route(blueprint, "GET", "/me", Operation({200: Me}))
def me() -> Response:
    """The caller's device, name and scope. Renews a browser's cookie."""
    who = access.caller()
    response = send_model(
        Me(
            client=who.client if who.token is None else f"token:{who.token.id}",
            client_id=who.client,
            device=None if who.token is None else who.token.device,
            name=who.name,
            scope=who.scope,
        )
    )
    if access.came_by_cookie():
        _set_cookie(response, request.cookies[access.COOKIE])
    return response


@route(blueprint, "GET", "/devices", Operation({200: DeviceList}))
def list_devices() -> Response:
    """List all devices, oldest first, with their valid tokens. For owners.

    One without a valid token is listed too: its pictures are there, and a code for it lets it in
    again.
    """
    access.require_owner()
    return send_model(DeviceList(devices=tuple(context().tokens.devices())))


@route(
    blueprint,
    "PATCH",
    "/devices/<device_id>",
    Operation({200: Device, 409: Problem}, json=RenameRequest),
)
def rename_device(device_id: str) -> Response:
    """Rename a device: one's own, or for owners any."""
    who = access.caller()
    if who.token is None or who.token.device != device_id:
        access.require_owner()
    name = context().bodies.read_json(RenameRequest).name
    try:
        device = context().tokens.rename(device_id, name)
    except NameTakenError as error:
        raise ProblemError(409, "name-taken", "The name is taken", str(error)) from None
    if device is None:
        raise not_found(f"device {device_id!r}")
    return send_model(device)


@route(blueprint, "DELETE", "/devices/<device_id>/tokens", Operation({204: None}))
def revoke_device(device_id: str) -> Response:
    """Revoke all tokens of a device. What it made stays. For owners."""
    access.require_owner()
    if not context().tokens.revoke_all(device_id):
        raise not_found(f"device {device_id!r}")
    return Response(status=204)


@route(blueprint, "GET", "/tokens", Operation({200: TokenList}))
def list_tokens() -> Response:
    """List the tokens that are valid. For owners."""
    access.require_owner()
    return send_model(TokenList(tokens=tuple(context().tokens.good())))


@route(blueprint, "POST", "/tokens", Operation({201: IssuedToken}, json=TokenRequest))
def create_token() -> Response:
    """Make a token for a new program, which cannot pair. Only this answer shows it. For owners.

    A name that another device has gets a number.
    """
    access.require_owner()
    asked = context().bodies.read_json(TokenRequest)
    token, secret = context().tokens.create(asked.name, asked.scope)
    return send_model(IssuedToken(**token.model_dump(), token=secret), 201)


@route(blueprint, "DELETE", "/tokens/<token_id>", Operation({204: None}))
def revoke_token(token_id: str) -> Response:
    """Revoke a token: one's own, or for owners any.

    The next request with it is refused.
    """
    own = access.caller().token_id == token_id
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
