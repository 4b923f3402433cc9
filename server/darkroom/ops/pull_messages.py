"""What web and a process that downloads say to each other: lines of JSON."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from darkroom.catalog.downloads import Hubs, Wanted
from darkroom.catalog.model_entry import NumberBytes
from darkroom.errors import Value
from darkroom.requests import Schema


class Asked(Schema):
    """The one line that the process reads; it has the token, which no command line may show."""

    action: Literal["plan", "fetch"]
    wanted: Wanted
    hubs: Hubs
    workers: tuple[NumberBytes, ...] = ()


class Planned(Schema):
    """A download as it would be; see `downloads.Plan` and `downloads.Judgement`."""

    type: Literal["planned"] = "planned"
    pinned: Wanted
    kind: str
    name: str
    title: str
    target: str
    unfinished: str
    files: int
    total_bytes: int
    family: str
    lacks: str | None
    memory_bytes: tuple[int, ...]


class Progress(Schema):
    """How much has arrived. Sent again and again, so that silence means trouble."""

    type: Literal["progress"] = "progress"
    done_bytes: int


class Arrived(Schema):
    type: Literal["arrived"] = "arrived"


class Refused(Schema):
    """Why it cannot be downloaded."""

    type: Literal["refused"] = "refused"
    reason: Literal["hub", "room", "taken", "pull"]
    detail: str
    code: str = ""
    values: dict[str, Value] = Field(default_factory=dict)


Said = Annotated[Planned | Progress | Arrived | Refused, Field(discriminator="type")]
SAID: TypeAdapter[Said] = TypeAdapter(Said)
