"""A page of another origin in a real browser: at a server that allows it, and at one without."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.security.doors import issue
from tests.security.test_foreign_page import serving
from tests.serving import RunningServer, running

MAX_BODY = 2**16
ASK = """async ([url, options]) => {
  const leaving = new AbortController();
  try {
    const answer = await fetch(url, { ...options, signal: leaving.signal });
    const headers = Object.fromEntries(answer.headers);
    const streams = headers["content-type"] === "text/event-stream";
    const text = streams ? "" : await answer.text();
    leaving.abort();
    return { status: answer.status, headers, text };
  } catch (error) { return { status: 0, headers: {}, text: String(error) }; }
}"""
# As OpenAI's SDK does in a browser.
SDK = {
    "accept": "application/json",
    "content-type": "application/json",
    "x-stainless-retry-count": "0",
    "x-stainless-lang": "js",
    "x-stainless-runtime": "browser:chrome",
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving("<!doctype html><title>A page of another origin</title>") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def host(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(
        tmp_path_factory.mktemp("host"),
        process="web",
        DARKROOM_WEB__ALLOWED_ORIGINS=json.dumps([address]),
        DARKROOM_WEB__MAX_BODY_BYTES=str(MAX_BODY),
    ) as started:
        yield started


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    opened = browser.new_page()
    opened.goto(address)
    yield opened
    opened.close()


def ask(page: Page, server: RunningServer, path: str, **options: Any) -> dict[str, Any]:
    answer: dict[str, Any] = page.evaluate(ASK, [server.url + path, options])
    return answer


@pytest.mark.slow
def test_a_page_that_is_allowed_uses_the_server_with_a_token(
    page: Page, host: RunningServer
) -> None:
    token = issue(host, "a page")["token"]
    key = {**SDK, "authorization": f"Bearer {token}"}

    models = ask(page, host, "/v1/models", headers=key)
    assert models["status"] == 200
    assert json.loads(models["text"])["data"]

    # KoboldAI Lite asks A1111's routes. Of Basic nobody knows whether the browser added it.
    bare = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    for path in ("/sdapi/v1/sd-models", "/sdapi/v1/options"):
        told = ask(page, host, path, headers=bare)
        assert (told["status"], bool(json.loads(told["text"]))) == (200, True), path

    body = json.dumps({"prompt": "a red fox", "stream": True, "style": "vivid"})
    stream = ask(page, host, "/v1/images/generations", method="POST", headers=key, body=body)
    assert stream["status"] == 200, stream
    assert stream["headers"]["x-ignored-fields"] == "style"
    assert stream["headers"]["x-request-id"]

    later = {**key, "prefer": "respond-async"}
    job = ask(page, host, "/txt2img", method="POST", headers=later, body='{"prompt": "a cat"}')
    assert job["status"] == 202, job
    gone = ask(page, host, job["headers"]["location"], method="DELETE", headers=key)
    assert json.loads(gone["text"])["status"] == "cancelled"


def test_it_reads_what_is_wrong(page: Page, host: RunningServer) -> None:
    key = {**SDK, "x-api-key": issue(host, "a page")["token"]}
    for status, answer in {
        401: ask(page, host, "/v1/models", headers=SDK),
        400: ask(page, host, "/v1/images/generations", method="POST", headers=key, body="{"),
        404: ask(page, host, "/no-such-page", headers=key),
        413: ask(page, host, "/txt2img", method="POST", headers=key, body=(MAX_BODY + 1) * "x"),
    }.items():
        assert answer["status"] == status, answer
        assert answer["headers"]["x-request-id"]
        assert answer["text"]


def test_it_is_not_trusted_for_the_machine_nor_for_the_browsers_cookie(
    page: Page, host: RunningServer
) -> None:
    token = issue(host, "the owner", "own")["token"]
    page.context.add_cookies([{"name": "darkroom_token", "value": token, "url": host.url}])

    assert ask(page, host, "/jobs")["status"] == 401
    # Without Allow-Credentials the browser keeps an answer to itself.
    assert ask(page, host, "/jobs", credentials="include")["status"] == 0


def test_a_page_that_is_not_allowed_reads_nothing(page: Page, idle_server: RunningServer) -> None:
    key = {"authorization": f"Bearer {issue(idle_server, 'a page')['token']}"}

    for headers in ({}, key):
        assert ask(page, idle_server, "/models", headers=headers)["status"] == 0
