"""Parts of the API document that several operations share: parameters, headers, problems, links."""

from dataclasses import dataclass
from typing import Any, Literal

from darkroom.requests import OutputFormat

Json = dict[str, Any]

IMAGES = tuple(output_format.content_type for output_format in OutputFormat)
EVENTS = ("text/event-stream",)
TIMELINE = ("image/webp",)

HASH = "[0-9a-f]{24}"
PATTERNS = {
    "job_id": f"^{HASH}$",
    "image_id": f"^(up{HASH}|{HASH}-[0-9])$",
    "token_id": "^[0-9a-f]{12}$",
}

# Statuses that every route can answer with.
EVERYWHERE = (401, 403, 422, 429, 500, 503)
WHY = {
    400: "The request cannot be read: not JSON, not a form, or a malformed header.",
    401: "A token is missing, wrong or revoked.",
    403: "This caller may not do this, or not from this origin.",
    404: "Not found, or it belongs to somebody else.",
    406: "`Accept` allows none of the available formats.",
    409: "It conflicts with the current state.",
    410: "It existed once and is gone.",
    413: "It is larger than allowed.",
    415: "This route does not read this content type.",
    422: "The request can be read but is not valid; `errors` names each field.",
    429: "Too many requests or jobs; `Retry-After` says when to retry.",
    500: "The server failed, or the job did.",
    503: "Not available now; `Retry-After` says when to retry.",
    507: "The disk is full.",
}
WAIT = (429, 503)  # with Retry-After

REQUEST_ID: Json = {
    "description": "The id of this request in the server's log.",
    "schema": {"type": "string"},
    "required": True,
}
RETRY_AFTER: Json = {
    "description": "Seconds until a retry makes sense.",
    "schema": {"type": "integer", "minimum": 0},
}
LOCATION: Json = {
    "description": "The URL of the job.",
    "schema": {"type": "string", "format": "uri-reference"},
}


@dataclass(frozen=True)
class Parameter:
    """A header or query parameter that a handler reads by itself."""

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


GIVEN_ID = Parameter(
    "X-Request-Id",
    "header",
    {"type": "string"},
    "An id for this request: 8 to 128 letters, digits, `-` and `_`. Others are ignored.",
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
    "A repeat with the same key returns the job of the first request.",
)
PRIORITY = Parameter(
    "Priority",
    "header",
    {"type": "string", "examples": ["u=1"]},
    "Urgency among your own jobs, `u=0` first, `u=7` last (RFC 9218).",
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "header",
    {"type": "string", "pattern": "^[0-9]{1,18}$"},
    "The stream continues after this event.",
)
IF_NONE_MATCH = Parameter(
    "If-None-Match",
    "header",
    {"type": "string"},
    "An earlier `ETag`; 304 if it is still current.",
)


def job_links() -> Json:
    """Links from a job in a response to the operations on it."""
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
    """Links from a page of jobs to its newest job and to the next page."""
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
