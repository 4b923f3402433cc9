"""/ca: the root certificate of this box's own authority, for a phone to install."""

from flask import Blueprint, Response

from darkroom.api.auth import access, tls
from darkroom.api.context import context
from darkroom.api.errors import ProblemError

blueprint = Blueprint("authority", __name__)


@blueprint.get("/ca")
@access.open_to_all
def show_authority() -> Response:
    """The root certificate, as PEM. Compare its fingerprint with what the terminal shows."""
    settings = context().settings
    if settings.tls.mode != "local_ca":
        raise ProblemError(
            404, "no-authority", "No authority", "this server does not use tls.mode: local_ca"
        )
    return Response(
        tls.authority(settings).root.read_bytes(),
        content_type="application/x-x509-ca-cert",
        headers={"Content-Disposition": 'attachment; filename="darkroom-ca.crt"'},
    )
