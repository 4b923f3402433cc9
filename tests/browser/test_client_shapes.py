"""The mobile client on screens and with letters that are not the usual ones."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.phone import TOO_WIDE, Phone, phone
from tests.serving import RunningServer

LYING = {"width": 844, "height": 390}
# Words that stand on two lines, in what is pressed and in headings.
BROKEN_WORDS = r"""() => [...document.querySelectorAll("button, .chip, .tab, h1, h2, legend")]
    .filter(e => e.checkVisibility() && !e.closest(".visually-hidden"))
    .flatMap(e => {
        const texts = document.createTreeWalker(e, NodeFilter.SHOW_TEXT);
        const broken = [];
        while (texts.nextNode()) {
            for (const { index, 0: word } of texts.currentNode.data.matchAll(/\S+/g)) {
                const range = document.createRange();
                range.setStart(texts.currentNode, index);
                range.setEnd(texts.currentNode, index + word.length);
                const lines = new Set([...range.getClientRects()].map(box => Math.round(box.top)));
                if (lines.size > 1) broken.push(word);
            }
        }
        return broken;
    })"""


@pytest.fixture
def lying(browser: Browser, server: RunningServer) -> Iterator[Phone]:
    """A phone on its side."""
    with phone(browser, server, screen=LYING) as opened:
        yield opened.open()
        assert opened.errors == []


def height_of(mobile: Phone, selector: str) -> float:
    height: float = mobile.page.locator(selector).evaluate("e => e.getBoundingClientRect().height")
    return height


def test_a_phone_on_its_side_has_room_for_the_form(lying: Phone) -> None:
    lying.wait_for_models()
    assert height_of(lying, ".go") <= 64
    tabs = lying.page.locator(".tabs").bounding_box()
    assert tabs
    assert tabs["width"] < 100, "the tabs take no height"


@pytest.mark.slow
def test_a_phone_on_its_side_shows_the_picture_in_its_full_height(lying: Phone) -> None:
    made = lying.server.txt2img("a red fox").json()["images"][0]["id"]
    lying.open(f"#/picture/{made}")
    lying.button("Edit").wait_for()
    stage = lying.page.locator(".viewer-stage").bounding_box()
    bars = [lying.page.locator(bar).bounding_box() for bar in (".viewer-top", ".viewer-bottom")]
    assert stage
    assert stage["height"] == LYING["height"]
    for bar in bars:
        assert bar
        beside = (
            bar["x"] + bar["width"] <= stage["x"] + 1 or bar["x"] >= stage["x"] + stage["width"] - 1
        )
        assert beside, "a bar covers the picture"

    lying.press("Edit")
    lying.press("Repaint a part")
    lying.page.get_by_role("application", name="Picture to paint on").wait_for()
    assert height_of(lying, ".mask-sheet") > 350
    expect(lying.button("Done")).to_be_in_viewport()


@pytest.mark.slow
def test_before_and_after_lie_upon_each_other(lying: Phone) -> None:
    start = lying.server.txt2img("a red fox").json()["images"][0]["id"]
    body = {"prompt": "a blue fox", "image": f"image:{start}", "num_inference_steps": 2}
    job = lying.server.http.post("/img2img", json=body).json()

    for place in (f"#/job/{job['id']}", f"#/picture/{job['id']}-0"):
        lying.open(place)
        lying.press("Compare")
        after = lying.page.get_by_role("img", name="After").bounding_box()
        assert after
        assert after["height"] > 250
        assert lying.page.get_by_role("img", name="Before").bounding_box() == after


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "language"), [pytest.param(390, "en", marks=pytest.mark.slow), (320, "vi")]
)
def test_large_letters_break_no_word(
    browser: Browser, server: RunningServer, width: int, language: str
) -> None:
    with phone(browser, server, screen={"width": width, "height": 780}) as mobile:
        mobile.context.add_init_script(
            f"""localStorage.setItem("darkroom.language", '"{language}"');
            addEventListener("DOMContentLoaded", () => {{
                document.documentElement.style.fontSize = "24px";  // as set in the browser
            }});"""
        )
        for place in ("", "#/gallery", "#/settings"):
            mobile.open(place)
            mobile.page.locator("h1").first.wait_for()
            assert mobile.page.evaluate(BROKEN_WORDS) == [], place
            assert mobile.page.evaluate(TOO_WIDE) == [], place
        assert height_of(mobile, ".settings-screen h1") < 60, "one line"
