"""The mobile client for everybody: screen readers, eyes that see little, and slow networks."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.browser.phone import Phone, Theme, phone
from tests.browser.screens import SCREENS, Made, develop_some
from tests.serving import RunningServer

pytestmark = pytest.mark.slow

AXE = Path(__file__).parents[2] / "mobile_client/node_modules/axe-core/axe.min.js"
THEMES: tuple[Theme, ...] = ("light", "dark")
# Buttons take a frame to change their colour.
COLOURS_SETTLED = """async () => {
    for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
    const transitions = document.getAnimations().filter(each => each instanceof CSSTransition);
    await Promise.allSettled(transitions.map(each => each.finished));
}"""
MOST_REQUESTS = 6
MOST_BYTES = 96 * 1024


def _with_daily(*daily: str, of: Iterable[str] = SCREENS) -> list[Any]:
    """Screens to look at every day, and others that are looked at in `make test-all`."""
    slow = [pytest.param(name, marks=pytest.mark.slow) for name in of if name not in daily]
    return [*daily, *slow]


@pytest.fixture(scope="module")
def made(server: RunningServer) -> Made:
    return develop_some(server)


@pytest.mark.parametrize("screen", _with_daily("create", "mask", "viewer"))
def test_axe_finds_nothing_in_either_theme(
    browser: Browser, server: RunningServer, made: Made, screen: str
) -> None:
    with phone(browser, server, reduced_motion="reduce") as mobile:
        SCREENS[screen](mobile, made)
        mobile.page.evaluate(AXE.read_text())

        for theme in THEMES:
            mobile.page.emulate_media(color_scheme=theme)
            mobile.page.evaluate(COLOURS_SETTLED)
            assert _violations(mobile) == [], theme
        assert mobile.errors == []


@pytest.mark.parametrize(
    "screen", _with_daily("create-advanced", of=("mask", "viewer", "gallery", "settings"))
)
def test_what_is_touched_is_at_least_44_pixels_large(
    browser: Browser, server: RunningServer, made: Made, screen: str
) -> None:
    with phone(browser, server) as mobile:
        SCREENS[screen](mobile, made)

        small = mobile.page.evaluate(
            """() => [...document.querySelectorAll("button, a[href], input, select, summary")]
                .filter(e => e.checkVisibility() && !e.closest("[inert]"))
                // A hidden box, or one in a label, is touched by its label.
                .map(e => e.closest("label") ?? e)
                .filter(e => !e.matches(".visually-hidden"))
                .map(e => [e.outerHTML.slice(0, 100), e.getBoundingClientRect()])
                .filter(([, box]) => Math.min(box.width, box.height) < 43.5)
                .map(([html, box]) => `${Math.round(box.width)}×${Math.round(box.height)} ${html}`)
            """
        )
        assert small == []


def test_the_first_screen_needs_little_of_a_slow_network(
    browser: Browser, server: RunningServer
) -> None:
    """Nothing cached: what the phone loads before a prompt can be written."""
    with phone(browser, server) as mobile:
        mobile.page.add_init_script(
            """new MutationObserver((_, observer) => {
                if (!document.getElementById("prompt")) return;
                observer.disconnect();
                const entries = ["navigation", "resource"].flatMap(
                    kind => performance.getEntriesByType(kind));
                window.loaded = entries.map(entry => [entry.name, entry.encodedBodySize]);
            }).observe(document, { childList: true, subtree: true });"""
        )
        mobile.page.goto(server.url)
        loaded = mobile.page.wait_for_function("() => window.loaded").json_value()

    assert len(loaded) <= MOST_REQUESTS, loaded
    assert 0 < sum(size for _, size in loaded) <= MOST_BYTES, loaded


def _violations(mobile: Phone) -> list[Any]:
    found = mobile.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        (violation["id"], node["html"][:160], node["failureSummary"])
        for violation in found["violations"]
        for node in violation["nodes"]
    ]
