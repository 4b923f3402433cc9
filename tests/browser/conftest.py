"""Chromium, and a phone in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

import darkroom
from tests.browser.phone import DEVELOPING_MS, Phone, phone
from tests.programs import program
from tests.serving import RunningServer

CLIENT = Path(darkroom.__file__).parent / "client/index.html"


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; Playwright brings only the remote control, an event loop of its own."""
    assert CLIENT.is_file(), "the mobile client is not built: make client"
    expect.set_options(timeout=DEVELOPING_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=program("chromium"),
            args=["--no-sandbox", "--enable-precise-memory-info"],  # tests may run as root
        )
        yield chromium
        chromium.close()


@pytest.fixture
def mobile(browser: Browser, server: RunningServer) -> Iterator[Phone]:
    """A phone with the client of the shared server open; its scripts may not fail."""
    with phone(browser, server) as opened:
        yield opened.open()
        assert opened.errors == []
