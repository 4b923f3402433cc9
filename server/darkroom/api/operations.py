"""What the API document says of an operation beside its models.

Content that is not JSON, headers, links, and the problems that every route can answer with. Said
here once, so that no handler has to.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from darkroom.api.errors import CONTENT_TYPE
from darkroom.requests import OutputFormat

Json = dict[str, Any]

IMAGES = tuple(output_format.content_type for output_format in OutputFormat)
EVENTS = ("text/event-stream",)
TIMELINE = ("image/webp",)

SCHEMAS, RESPONSES = "#/components/schemas/", "#/components/responses/"
HASH = "[0-9a-f]{24}"
PATTERNS = {
    "job_id": f"^{HASH}$",
    "image_id": f"^(up{HASH}|{HASH}-[0-9])$",
    "token_id": "^[0-9a-f]{12}$",
}

# What stands before every handler answers these.
EVERYWHERE = (401, 403, 429, 500, 503)
WHY = {
    400: "It cannot be read: not JSON, not a form, or a header that makes no sense.",
    401: "It is not known who asks: a token is missing, wrong or revoked.",
    403: "Who asks may not do this, or not from there.",
    404: "There is no such thing, or it is somebody else's.",
    406: "It does not come in a form that `Accept` allows.",
    409: "It does not go together with how things stand.",
    410: "It was there once.",
    413: "It is larger than allowed.",
    415: "It is of a kind that this route does not read.",
    422: "It can be read, and is not valid; `errors` names each field.",
    429: "There is too much of it; `Retry-After` says when to come again.",
    500: "The server made a mistake, or the job failed.",
    503: "Not now; `Retry-After` says when to come again.",
    507: "The disk is full.",
}
WAIT = (429, 503)  # with Retry-After

REQUEST_ID: Json = {
    "description": "Names this exchange in the server's log.",
    "schema": {"type": "string"},
    "required": True,
}
RETRY_AFTER: Json = {
    "description": "Seconds until it is worth another try.",
    "schema": {"type": "integer", "minimum": 0},
}
LOCATION: Json = {
    "description": "Where the job is.",
    "schema": {"type": "string", "format": "uri-reference"},
}


@dataclass(frozen=True)
class Parameter:
    """What a handler reads from a request by itself.

    Attributes:
        name: of the header or query parameter.
        place: where it stands.
        schema: of its value.
        description: what it does.
    """

    name: str
    place: Literal["header", "query"]
    schema: Json
    description: str

    def write(self) -> Json:
        return {
            "name": self.name,
            "in": self.place,
            "required": False,
            "schema": self.schema,
            "description": self.description,
        }


@dataclass(frozen=True)
class Saying:
    """What is said of one operation.

    Attributes:
        sends: content types by status, beside what its models say.
        takes: parameters beside those of its models.
    """

    sends: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    takes: tuple[Parameter, ...] = ()


GIVEN_ID = Parameter(
    "X-Request-Id",
    "header",
    {"type": "string"},
    "A name for this exchange: 8 to 128 letters, digits, `-` and `_`. Another is passed over.",
)
PREFER = Parameter(
    "Prefer",
    "header",
    {"type": "string", "examples": ["respond-async", "wait=10"]},
    "`respond-async` answers 202 at once, `wait=N` after N seconds at most (RFC 7240).",
)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "A repeat with the same key answers with the first one's job.",
)
PRIORITY = Parameter(
    "Priority",
    "header",
    {"type": "string", "examples": ["u=1"]},
    "Urgency among one's own jobs, `u=0` first, `u=7` last (RFC 9218).",
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "header",
    {"type": "string", "pattern": "^[0-9]{1,18}$"},
    "The stream goes on after this event.",
)
IF_NONE_MATCH = Parameter(
    "If-None-Match",
    "header",
    {"type": "string"},
    "An `ETag` from before; 304 if it still holds.",
)


def job_links() -> Json:
    """From an answer that is a job to what can be done with it."""
    job = {"job_id": "$response.body#/id"}
    links: Json = {
        name: {"operationId": operation, "parameters": job}
        for name, operation in (
            ("show", "show_job"),
            ("cancel", "cancel_job"),
            ("watch", "job_events"),
            ("timeline", "show_timeline"),
        )
    }
    image = {"image_id": "$response.body#/images/0/id"}
    links["image"] = {"operationId": "show_image", "parameters": image}
    return links


def page_links() -> Json:
    """From a page of jobs to its newest, and to the next page."""
    return {
        "newest": {
            "operationId": "show_job",
            "parameters": {"job_id": "$response.body#/jobs/0/id"},
        },
        "next": {
            "operationId": "list_jobs",
            "parameters": {"cursor": "$response.body#/next_cursor"},
        },
    }


def finish(document: Json, said: Mapping[tuple[str, str], Saying]) -> None:
    """Say in a document what its models do not.

    Args:
        document: OpenAPI 3.1; changed in place.
        said: by method, in small letters, and path.
    """
    statuses = set(EVERYWHERE)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            statuses |= _finish_operation(operation, said.get((method, path), Saying()))
    document["components"]["responses"] = {
        str(status): _problem(status) for status in sorted(statuses)
    }
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Form"):
            _without_null(schema.get("properties", {}).values())


def _finish_operation(operation: Json, saying: Saying) -> set[int]:
    """Returns the statuses of its problems."""
    parameters: list[Json] = operation.setdefault("parameters", [])
    for parameter in parameters:
        _without_null([parameter["schema"]])
        if parameter["in"] == "path":
            parameter["schema"]["pattern"] = PATTERNS.get(parameter["name"], ".+")
    parameters += [taken.write() for taken in (*saying.takes, GIVEN_ID)]
    responses = operation["responses"]
    problems = {int(status) for status in responses if int(status) >= 400} | set(EVERYWHERE)
    if any(parameter["in"] == "path" for parameter in parameters):
        problems.add(404)
    if any(parameter["in"] == "query" for parameter in parameters):
        problems.add(422)
    for status, kinds in saying.sends.items():
        content = responses[str(status)].setdefault("content", {})
        content.update({kind: {"schema": _bytes_or_text(kind)} for kind in kinds})
    for status, response in responses.items():
        if int(status) < 400:
            _finish_success(int(status), response)
    for status in problems:
        responses[str(status)] = {"$ref": f"{RESPONSES}{status}"}
    operation["responses"] = dict(sorted(responses.items()))
    return problems


def _finish_success(status: int, response: Json) -> None:
    headers = {"X-Request-Id": REQUEST_ID}
    if status == HTTPStatus.ACCEPTED:
        headers["Location"] = LOCATION
    response["headers"] = headers
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref") == f"{SCHEMAS}Job":
        response["links"] = job_links()
    elif schema.get("$ref") == f"{SCHEMAS}JobPage":
        response["links"] = page_links()


def _problem(status: int) -> Json:
    headers = {"X-Request-Id": REQUEST_ID}
    if status in WAIT:
        headers["Retry-After"] = RETRY_AFTER
    return {
        "description": WHY.get(status, HTTPStatus(status).phrase),
        "headers": headers,
        "content": {CONTENT_TYPE: {"schema": {"$ref": f"{SCHEMAS}Problem"}}},
    }


def _bytes_or_text(kind: str) -> Json:
    return {"type": "string"} if kind.startswith("text/") else {}


def _without_null(schemas: Iterable[Json]) -> None:
    """Queries and forms leave out what has no value; they have no way to write null."""
    for schema in schemas:
        kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:
            del schema["anyOf"]
            schema.update(kinds[0])
        if schema.get("default", ...) is None:
            del schema["default"]
