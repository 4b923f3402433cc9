"""What was asked for and not done, so that nobody has to find out by looking at the picture."""

import re

MAX_NAMES = 64
MAX_CHARS = 100  # of one name; they are the caller's own words
UNFIT = re.compile(r"[^A-Za-z0-9_.:+\-\[\]<>|() ]")  # for a header


class Ignored:
    """Names of fields, in the order in which they were found, each once."""

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
        """Of the response; none if nothing was ignored."""
        if not self._names:
            return {}
        return {"X-Ignored-Fields": ", ".join(UNFIT.sub("?", name) for name in self._names)}
