"""An HTTP response as plain data, and what it means."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar

from darkroom_client.core.errors import APIError, UnexpectedResponseError, api_error
from darkroom_client.core.problem import Problem

T = TypeVar("T")

PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Answer:
    """A whole response.

    Attributes:
        headers: by name in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def retry_after_s(self) -> float | None:
        """Seconds to wait by `Retry-After` (RFC 9110, section 10.2.3), or None.

        A date counts from the response's own `Date`, so that clocks need not agree.
        """
        value = self.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            return float(value)
        try:
            until = parsedate_to_datetime(value)
            wait = until - parsedate_to_datetime(self.headers.get("date", ""))
        except (TypeError, ValueError):
            return None
        return max(0.0, wait.total_seconds())

    def read(self, parse: Callable[[Any], T]) -> T:
        """The body's JSON as a record.

        Raises:
            UnexpectedResponseError: the body is not what a Darkroom server answers.
        """
        try:
            return parse(json.loads(self.body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            kind = self.headers.get("content-type", "no content type")
            message = f"not a Darkroom server's answer: {self.status}, {kind}, {error!r}"
            raise UnexpectedResponseError(message) from error

    def error(self) -> APIError:
        """What a response that is not `ok` means."""
        return api_error(self._problem(), self.retry_after_s)

    def _problem(self) -> Problem:
        if self.headers.get("content-type", "").startswith(PROBLEM):
            return self.read(Problem.from_wire)
        try:
            title = HTTPStatus(self.status).phrase
        except ValueError:
            title = "Unknown status"
        return Problem(
            type="about:blank",
            title=title,
            status=self.status,
            detail="the answer says no more; is there a proxy or another server in between?",
            request_id=self.headers.get("x-request-id"),
        )
