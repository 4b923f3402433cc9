"""HTTP beside bodies: queries, headers of requests, answers in JSON, security headers."""

import re
from typing import TypeVar

from flask import Flask, Response, request
from pydantic import BaseModel, ValidationError

from darkroom.api.errors import field_errors, invalid, pointer
from darkroom.requests import OutputFormat
from darkroom.responses import FieldError
from darkroom.storage.records import DEFAULT_URGENCY

Query = TypeVar("Query", bound=BaseModel)

IMAGE_TYPES = tuple(output_format.content_type for output_format in OutputFormat)

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
MAX_PRIORITY_CHARS = 256

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=(), payment=(), usb=()",
}
YEAR_S = 365 * 24 * 3600
UNCACHED = ("application/json", "application/problem+json", "text/html", "text/plain")


def send_model(
    model: BaseModel, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Answer with a model as JSON."""
    return Response(model.model_dump_json(), status, headers or {}, content_type="application/json")


def read_query(model: type[Query]) -> Query:
    """The current request's query string, validated.

    Raises:
        ProblemError: 422, naming each parameter.
    """
    twice = [name for name, values in request.args.lists() if len(values) > 1]
    if twice:
        raise invalid(
            FieldError(pointer=pointer(name), detail="is given more than once") for name in twice
        )
    try:
        return model.model_validate(request.args.to_dict())
    except ValidationError as error:
        raise invalid(field_errors(error, model.model_fields)) from None


def wants_image() -> bool:
    """Whether the caller prefers a picture over JSON."""
    accept = request.accept_mimetypes
    return max(accept.quality(kind) for kind in IMAGE_TYPES) > accept.quality("application/json")


def accepted_format() -> OutputFormat | None:
    """The picture format that `Accept` asks for by name or wildcard; None if it is for JSON."""
    if not wants_image():
        return None
    best = request.accept_mimetypes.best_match(IMAGE_TYPES, default=IMAGE_TYPES[0])
    return OutputFormat(best.removeprefix("image/"))


def preferred_wait_s() -> float | None:
    """Seconds to wait for a job, by `Prefer` (RFC 7240); None is until it ends."""
    prefers = request.headers.get("Prefer", "")
    if re.search(r"(^|[,;\s])respond-async($|[,;\s])", prefers) and "wait" not in prefers:
        return 0
    found = re.search(r"(^|[,;\s])wait\s*=\s*\"?(\d+)", prefers)
    return float(found.group(2)) if found else None


def urgency(priority: str) -> int:
    """The urgency in a `Priority` header (RFC 9218): 0 to 7, 0 is the most urgent.

    One that is absent, malformed or out of range counts as the default (RFC 9218, section 4): a
    client that speaks a later version must not be refused.
    """
    text = priority.strip(" ")
    found = DEFAULT_URGENCY
    position = 0
    while position < len(text) <= MAX_PRIORITY_CHARS:
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


def install_security_headers(app: Flask, strict_transport: bool) -> None:
    """Restrict what browsers do with any response, unless the response says otherwise.

    Args:
        app: the application.
        strict_transport: whether browsers shall insist on TLS from now on.
    """
    more = {"Strict-Transport-Security": f"max-age={YEAR_S}"} if strict_transport else {}

    @app.after_request
    def add(response: Response) -> Response:
        for name, value in {**SECURITY_HEADERS, **more}.items():
            response.headers.setdefault(name, value)
        if response.mimetype in UNCACHED:
            response.headers.setdefault("Cache-Control", "no-store")
        return response
