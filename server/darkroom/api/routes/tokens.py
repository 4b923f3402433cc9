"""/tokens: who was let in. For owners."""

from flask import Blueprint, Response

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import not_found
from darkroom.api.openapi import route
from darkroom.api.render import send_model
from darkroom.requests import TokenRequest
from darkroom.responses import IssuedToken, Problem, TokenList

blueprint = Blueprint("tokens", __name__)


@route(
    blueprint,
    "GET",
    "/tokens",
    answers={200: TokenList},
    tag="door",
)
def list_tokens() -> Response:
    """The devices that were let in. For owners."""
    access.require_owner()
    return send_model(TokenList(tokens=tuple(context().tokens.good())))


@route(
    blueprint,
    "POST",
    "/tokens",
    json=TokenRequest,
    answers={201: IssuedToken, 400: Problem, 413: Problem, 415: Problem, 422: Problem},
    tag="door",
)
def create_token() -> Response:
    """A token for a program, which cannot pair. Its secret is in this answer only. For owners."""
    access.require_owner()
    asked = context().bodies.read_json(TokenRequest)
    token, secret = context().tokens.create(asked.name, asked.scope)
    return send_model(IssuedToken(**token.model_dump(), token=secret), 201)


@route(
    blueprint,
    "DELETE",
    "/tokens/<token_id>",
    answers={204: None},
    tag="door",
)
def revoke_token(token_id: str) -> Response:
    """Let a token be good for nothing from now on. Its own, or for owners anybody's.

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
