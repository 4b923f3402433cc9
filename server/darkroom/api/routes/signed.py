"""/signed: pictures by addresses that open without a token, for clients that send none."""

from flask import Blueprint, Response, request
from pydantic import BaseModel, Field

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError, not_found
from darkroom.api.openapi import read_query
from darkroom.api.routes.images import send_stored

blueprint = Blueprint("signed", __name__)


class SignedQuery(BaseModel):
    """What was handed out with the picture's address."""

    expires: int = Field(ge=0, le=2**53, description="Seconds since the epoch.")
    signature: str = Field(min_length=1, max_length=100)


def signed_address(image_id: str) -> str:
    """An absolute address of one of the caller's pictures, good for an hour without a token.

    Its host is the one that the caller asked.
    """
    query = context().signatures.sign(image_id)
    return f"{request.host_url}signed/{image_id}?{query}"


@blueprint.get("/signed/<image_id>")
@access.open_to_all
def show_signed(image_id: str) -> Response:
    """A picture's bytes, for whoever has its address.

    Pages of other sites may show it: those of chat programs run on a host of their own.
    """
    here = context()
    query = read_query(SignedQuery)
    left_s = here.signatures.left_s(image_id, query.expires, query.signature)
    if left_s == 0 or not _maker_may_stay(image_id):
        raise ProblemError(
            403,
            "signature",
            "Not with this address",
            "this address has expired or was never handed out; ask for the picture with a token",
        )
    stored = here.store.picture(image_id, None)
    if stored is None:
        raise not_found(f"picture {image_id!r}")
    response = send_stored(stored, {"Cross-Origin-Resource-Policy": "cross-origin"})
    response.headers["Cache-Control"] = f"private, max-age={left_s}"
    return response


def _maker_may_stay(image_id: str) -> bool:
    """Whether who asked for the picture is still let in: addresses die with the token."""
    job_id, _, _ = image_id.rpartition("-")
    client = context().store.owners({job_id}).get(job_id)
    return client is not None and access.is_let_in(client)
