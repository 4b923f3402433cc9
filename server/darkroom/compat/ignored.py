"""Names of the fields of a request that had no effect; an answer lists them in a header."""

import re

from flask import Response

HEADER = "X-Ignored-Fields"
MAX_NAMES = 64
MAX_CHARS = 100  # of one name, which the caller chose
NOT_FOR_HEADERS = re.compile(r"[^A-Za-z0-9_.:+\-\[\]<>|() ]")


class Ignored:
    """Names in the order in which they were added, each once, at most `MAX_NAMES`."""

    def __init__(self, *names: str) -> None:
        self._names: dict[str, None] = {}
        self.add(*names)

    def add(self, *names: str) -> None:
        for name in names:
            if len(self._names) < MAX_NAMES:
                self._names[name[:MAX_CHARS]] = None

    @property
    def names(self) -> list[str]:
        return list(self._names)

    @property
    def headers(self) -> dict[str, str]:
        """The response's header; none if nothing was ignored."""
        if not self._names:
            return {}
        return {HEADER: ", ".join(NOT_FOR_HEADERS.sub("?", name) for name in self._names)}

    def sent_with(self, response: Response) -> Response:
        """The response, with the header added."""
        response.headers.update(self.headers)
        return response
