"""The `Priority` header (RFC 9218): how urgent a request is, among its client's own."""

import re

from darkroom.storage.records import DEFAULT_URGENCY

# A dictionary of structured fields (RFC 9651, section 3.2).
_KEY = r"[a-z*][a-z0-9_\-.*]*"
_ITEM = (
    r"(?:-?[0-9]{1,12}\.[0-9]{1,3}|@?-?[0-9]{1,15}"
    r"|%?\"(?:[ !#-\[\]-~]|\\[\"\\])*\"|[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*"
    r"|:[A-Za-z0-9+/=]*:|\?[01])"
)
_PARAMETERS = rf"(?:;[ ]*{_KEY}(?:={_ITEM})?)*"
_LIST = rf"\([ ]*(?:{_ITEM}{_PARAMETERS}(?:[ ]+{_ITEM}{_PARAMETERS})*)?[ ]*\)"
_MEMBER = re.compile(rf"({_KEY})(?:=({_ITEM}|{_LIST}))?{_PARAMETERS}")
_COMMA = re.compile(r"[ \t]*,[ \t]*")
_URGENCY = re.compile(r"[0-7]")
MAX_CHARS = 256


def urgency(header: str) -> int:
    """0 to 7, the most urgent first.

    What is not there, malformed or out of range counts as the default, as the RFC asks
    (section 4): a client that speaks a later version of it must not be refused.
    """
    text = header.strip(" ")
    found = DEFAULT_URGENCY
    position = 0
    while position < len(text) <= MAX_CHARS:
        member = _MEMBER.match(text, position)
        if member is None:
            return DEFAULT_URGENCY
        if member[1] == "u":
            usable = member[2] is not None and _URGENCY.fullmatch(member[2])
            found = int(member[2]) if usable else DEFAULT_URGENCY
        position = member.end()
        if position == len(text):
            return found
        comma = _COMMA.match(text, position)
        if comma is None or comma.end() == len(text):
            return DEFAULT_URGENCY
        position = comma.end()
    return DEFAULT_URGENCY
