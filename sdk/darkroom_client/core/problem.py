"""Problem details (RFC 9457), the one shape of a server's errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with one field.

    Attributes:
        pointer: a JSON pointer as a URI fragment, as `#/width`.
        detail: what is wrong, and often what was meant.
    """

    pointer: str
    detail: str


@dataclass(frozen=True)
class Problem:
    """Why a request or a job failed.

    Attributes:
        type: a URI that names the kind, as `urn:darkroom:problem:validation`.
        title: the same for every problem of this type.
        status: HTTP status.
        detail: what happened this time.
        errors: one for each wrong field.
        request_id: under which the server's log has more.
    """

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()
    request_id: str | None = None

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            type=data.get("type", "about:blank"),
            title=data["title"],
            status=data["status"],
            detail=data.get("detail", ""),
            errors=tuple(
                FieldError(error["pointer"], error["detail"]) for error in data.get("errors", ())
            ),
            request_id=data.get("request_id"),
        )
