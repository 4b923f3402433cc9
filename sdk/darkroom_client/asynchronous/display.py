"""How a picture and a job stand in a notebook."""

from typing import Protocol

from darkroom_client.core.records import JobRecord
from darkroom_client.notebook import page
from darkroom_client.notebook.look import Look


class Displayed:
    """As words: a notebook asks for pixels without `await`, and these have to be fetched."""


class Recorded(Protocol):
    """A job of which something is known."""

    record: JobRecord


class DisplayedJob:
    """As words, for the same reason."""

    def _repr_html_(self: Recorded) -> str:
        return page.html(Look.of(self.record))
