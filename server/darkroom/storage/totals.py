"""How much is stored, without counting it: triggers keep these numbers as rows come and go."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from darkroom.storage.tables import TotalRow

_JOBS, _CLIENT = "jobs:", "client:"


@dataclass(frozen=True)
class Totals:
    """What the transaction that read them sees.

    Attributes:
        jobs: by status.
        jobs_of: by client.
        bytes: of pictures, uploads and explanations.
    """

    jobs: Mapping[str, int]
    jobs_of: Mapping[str, int]
    pictures: int
    picture_bytes: int
    bytes: int


def read(session: Session) -> Totals:
    values = dict(session.execute(select(TotalRow.name, TotalRow.value)).all())
    size = values.get("picture_bytes", 0)
    return Totals(
        jobs=_of(values, _JOBS),
        jobs_of=_of(values, _CLIENT),
        pictures=values.get("pictures", 0),
        picture_bytes=size,
        bytes=size + values.get("upload_bytes", 0) + values.get("explanation_bytes", 0),
    )


def _of(values: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }
