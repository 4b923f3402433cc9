"""What a box keeps of having joined: `fleet.json` in its data folder, for its user alone."""

from pydantic import ValidationError

from darkroom.config import Settings
from darkroom.errors import DarkroomError
from darkroom.ops.fleet.handover import Handover
from darkroom.requests import Schema
from darkroom.storage.files import write_key


class NotJoinedError(DarkroomError):
    """This machine has not joined a fleet, or what it kept of that is damaged."""


class Membership(Schema):
    """A box's place in a fleet.

    Attributes:
        url: of the first box.
        certificate: PEM; the authority or certificate that the code's fingerprint is of.
        pinned: whether it is that server's own certificate, which may be made out for any name.
        address: of this box, where Ray's other nodes reach it.
        secret: by which the first box knows this one.
        handover: what it said last.
    """

    url: str
    certificate: str
    pinned: bool
    address: str
    secret: str
    handover: Handover


def write(settings: Settings, membership: Membership) -> None:
    """Keep it. OSError if that cannot be."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    write_key(settings.membership_path, membership.model_dump_json(indent=1).encode())


def read(settings: Settings) -> Membership:
    """What was kept.

    Raises:
        NotJoinedError: nothing, or it cannot be read.
    """
    try:
        return Membership.model_validate_json(settings.membership_path.read_bytes())
    except FileNotFoundError:
        raise NotJoinedError(
            "this machine has not joined a fleet: run `darkroom join URL CODE` with the URL of "
            "the first box and a code that `darkroom fleet code` prints there"
        ) from None
    except ValidationError as error:
        raise NotJoinedError(
            f"{settings.membership_path} is damaged ({error.errors()[0]['msg']}); delete it and "
            "join with a new code"
        ) from None
