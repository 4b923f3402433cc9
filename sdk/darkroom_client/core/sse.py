"""Server-sent events (HTML standard, section 9.2).

The HTTP library has a parser too, but it hides the comments that a server sends as signs of life,
and those are when a caller's deadline gets looked at while nothing happens.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# A carriage return at the very end may be half of a CRLF. Not str.splitlines: it also splits at
# U+2028 and others, which JSON strings may hold.
LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


@dataclass(frozen=True)
class Message:
    """One event as it was sent. `id` is empty where it has none of its own."""

    event: str
    data: str
    id: str


class Decoder:
    """Gathers bytes into messages. One that is cut off never comes out."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, list[str]] = {}

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The messages that a chunk of the stream completes."""
        *lines, self._rest = LINE_END.split(self._rest + chunk)
        for line in lines:
            if line:
                name, _, value = line.decode(errors="replace").partition(":")
                self._fields.setdefault(name, []).append(value.removeprefix(" "))
            elif message := self._complete():
                yield message

    def _complete(self) -> Message | None:
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        return Message(
            event=fields.get("event", ["message"])[-1],
            data="\n".join(fields["data"]),
            id=fields.get("id", [""])[-1],
        )
