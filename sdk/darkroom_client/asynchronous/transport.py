"""Calls to answers over HTTP, with retries. All of the client's traffic passes here."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from darkroom_client.core.answer import Answer
from darkroom_client.core.call import Call
from darkroom_client.core.errors import APIError, ConnectionFailedError, NotFoundError
from darkroom_client.core.retries import RetryPolicy
from darkroom_client.effects import AsyncEffects
from darkroom_client.http_errors import translated

CONNECT_TIMEOUT_S = 5.0  # a machine of the local network answers at once or is not there


class AsyncTransport:
    """The way to one server. Its calls may overlap.

    Args:
        http: sends; its base URL and headers are not used.
        base_url: of the server.
        token: of this device, or None.
        timeout_s: longest silence of the server within one attempt.
        policy: of retries.
        effects: to wait with.
    """

    def __init__(
        self,
        http: httpx2.AsyncClient,
        base_url: str,
        token: str | None,
        timeout_s: float,
        policy: RetryPolicy,
        effects: AsyncEffects,
    ) -> None:
        self._http = http
        self._base_url = base_url
        self._headers: Mapping[str, str] = {}
        self.timeout_s = timeout_s
        self.policy = policy
        self.effects = effects
        if token:
            self.authorize(token)

    def authorize(self, token: str) -> None:
        """Show this token from here on."""
        self._headers = {"Authorization": f"Bearer {token}"}

    async def send(self, call: Call) -> Answer:
        """A call's answer, good by its status.

        Raises:
            APIError: the server refused, and goes on refusing.
            ConnectionFailedError: it is not reached.
            UnexpectedResponseError: the answer is not HTTP as we know it.
        """
        retries, was_lost = 0, False
        while True:
            answer: Answer | None = None
            failure: APIError | ConnectionFailedError
            try:
                answer = await self._once(call)
            except ConnectionFailedError as error:
                failure, was_lost = error, True
            else:
                if answer.ok:
                    return answer
                failure = answer.error()
                # What is gone at a second try was deleted by the first, whose answer was lost.
                if call.deletes and was_lost and isinstance(failure, NotFoundError):
                    return answer
            chance = self.effects.chance()
            pause_s = self.policy.pause_s(retries, answer, chance) if call.retries else None
            if pause_s is None:
                raise failure
            await self.effects.sleep(pause_s)
            retries += 1

    @asynccontextmanager
    async def stream(
        self, call: Call, read_timeout_s: float
    ) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """A call's answer without its body, and the body as it arrives. Never retries.

        Raises:
            ConnectionFailedError: on opening or from the body: it broke, or was silent for longer
                than `read_timeout_s`.
        """
        with translated():
            response = await self._http.send(self._request(call, read_timeout_s), stream=True)
        try:
            yield _answer(response), _chunks(response)
        finally:
            await response.aclose()

    async def _once(self, call: Call) -> Answer:
        with translated():
            patience_s = max(self.timeout_s, call.patience_s)
            response = await self._http.send(self._request(call, patience_s))
        return _answer(response, response.content)

    def _request(self, call: Call, read_timeout_s: float) -> httpx2.Request:
        body: dict[str, Any] = {}
        if call.json is not None:
            body["json"] = dict(call.json)
        if call.files:
            body["data"] = dict(call.form)
            body["files"] = {name: (name, data) for name, data in call.files.items()}
        return self._http.build_request(
            call.method,
            self._base_url + call.path,
            params=dict(call.query),
            headers={**self._headers, **call.headers},
            timeout=httpx2.Timeout(
                self.timeout_s,
                connect=min(CONNECT_TIMEOUT_S, read_timeout_s),
                read=read_timeout_s,
            ),
            **body,
        )


def _answer(response: httpx2.Response, body: bytes = b"") -> Answer:
    return Answer(response.status_code, dict(response.headers), body)


async def _chunks(response: httpx2.Response) -> AsyncIterator[bytes]:
    with translated():
        async for chunk in response.aiter_bytes():
            yield chunk
