"""Who may be told of a job's end: only whom the owner has allowed."""

from darkroom import destinations
from darkroom.api.context import context
from darkroom.api.errors import pointer
from darkroom.destinations import Destination, DestinationError
from darkroom.responses import FieldError


def find(url: str | None) -> tuple[Destination | None, list[FieldError]]:
    """The address of a request's `webhook`, if it has one, and what is wrong with it.

    What is allowed is not said, for paths may be secrets of others.
    """
    if url is None:
        return None, []
    allowed = context().settings.webhooks.allow
    if not allowed:
        return None, _wrong("this server calls nobody; its owner can allow it in webhooks.allow")
    try:
        found = destinations.parse(url)
    except DestinationError as error:
        return None, _wrong(str(error))
    if not destinations.is_allowed(found, allowed):
        return None, _wrong("is not below an address that the owner allows in webhooks.allow")
    return found, []


def _wrong(detail: str) -> list[FieldError]:
    return [FieldError(pointer=pointer("webhook"), detail=detail)]
