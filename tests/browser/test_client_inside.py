"""Looking inside a picture: in Chromium, Firefox and WebKit, on a phone, and without the server."""

import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

import darkroom
from tests.browser import webdriver
from tests.browser.phone import TOO_WIDE, Phone, phone
from tests.browser.webdriver import WebDriver
from tests.engine import tiny_families
from tests.serving import RunningServer, running
from tests.waiting import eventually

TINTYPE = Path(darkroom.__file__).parent / "models/tintype"
PROMPT = "a fox on a blue background"
SHARES = re.compile(r"^In the [a-z ]+: .+ [\d.]+ %")
PLACE = "Picture; arrow keys choose a place"
# How different the places of the map over the picture are: 0 without one.
CONTRAST = """
    const canvas = document.querySelector(".inside-part canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const reds = data.filter((_, at) => at % 4 === 0);
    return Math.max(...reds) - Math.min(...reds);
"""


@pytest.fixture(scope="module")
def picture(server: RunningServer) -> str:
    """The id of a picture that was made without an explanation, in company."""
    made: str = server.txt2img(PROMPT).json()["images"][0]["id"]
    return made


@pytest.fixture
def inside(mobile: Phone, picture: str) -> Phone:
    """A phone that looks inside the picture."""
    look(mobile, picture)
    return mobile


def look(mobile: Phone, picture: str) -> None:
    mobile.open(f"#/picture/{picture}")
    mobile.press("Look inside")
    again = mobile.button("Make it again")
    again.or_(mobile.button("fox")).wait_for()
    if again.is_visible():
        again.click()
    mobile.button("fox").wait_for()


def said(mobile: Phone) -> Locator:
    """What is read out when something was touched."""
    return mobile.page.locator(".inside-said")


def contrast(mobile: Phone) -> int:
    found: int = mobile.page.evaluate(f"() => {{ {CONTRAST} }}")
    return found


Opening = Callable[[Path], AbstractContextManager[WebDriver]]


@pytest.mark.parametrize(
    "opening",
    [
        pytest.param(webdriver.firefox, id="firefox"),
        pytest.param(webdriver.webkit, id="webkit"),
    ],
)
@pytest.mark.slow
def test_other_browsers_show_the_same(
    opening: Opening, server: RunningServer, tmp_path: Path
) -> None:
    """By mouse and keys. Dark colours and no network are Chromium's alone (see `webdriver`)."""
    made = server.txt2img(PROMPT, exact=True).json()["images"][0]["id"]
    with opening(tmp_path) as browser:
        browser.resize(450, 900)
        browser.goto(f"{server.url}/#/picture/{made}")
        browser.click("button", "Look inside")
        browser.click("button", "Make it again")
        browser.find("button", "fox")
        assert "byte for byte" in browser.text("status")

        browser.click("button", "fox")
        assert browser.text("status", "").startswith(("“fox”: most in the", "Made again"))
        eventually(lambda: browser.run(CONTRAST) > 100)  # it is drawn in the next frame

        browser.press("application", PLACE, "ArrowUp")
        browser.press("application", PLACE, "ArrowLeft")
        heard = browser.run("return document.querySelector('.inside-said').innerText")
        assert SHARES.search(heard), heard
        eventually(lambda: browser.run(CONTRAST) == 0)
        assert browser.find("button", re.compile(r"^fox [\d.]+ %"))

        before = browser.value_text("slider", "Steps")
        assert before.startswith("Step 2 of 2, signal")
        browser.press("slider", "Steps", "ArrowLeft")
        assert browser.value_text("slider", "Steps").startswith("Step 1 of 2, signal")
        for name in ("Guess", "Noise", "Latents"):
            shown = browser.find("img", re.compile(f"^{name}, Step 1 of 2$"))
            assert shown

        browser.press("button", "Back", "Escape")
        browser.find("button", "Look inside")


@pytest.mark.slow
def test_a_touched_word_shows_where_the_model_looked_for_it(inside: Phone) -> None:
    assert contrast(inside) == 0
    inside.press("fox")

    expect(said(inside)).to_have_text(re.compile("^“fox”: most in the .+"))
    expect(inside.button("fox")).to_have_attribute("aria-pressed", "true")
    eventually(lambda: contrast(inside) > 100)
    inside.page.get_by_role("radio", name="All steps").check(force=True)
    expect(said(inside)).to_have_text(re.compile("^“fox”: most in the .+"))


@pytest.mark.slow
def test_a_touched_place_tells_which_words_it_was(inside: Phone) -> None:
    box = inside.page.get_by_role("application", name=PLACE).bounding_box()
    assert box
    left, middle = box["x"] + 20, box["y"] + box["height"] / 2
    inside.page.touchscreen.tap(left, box["y"] + 20)
    expect(said(inside)).to_have_text(re.compile(r"^In the top left: .+ \d+ %"))
    at_first = said(inside).inner_text()

    inside.drag((left, middle), (box["x"] + box["width"] - 20, middle))
    expect(said(inside)).to_have_text(re.compile(r"^In the right: .+ \d+ %"))
    assert said(inside).inner_text() != at_first
    # Each word has its share, and what is not a word has the rest.
    shares = inside.page.locator(".inside-share").all_inner_texts()
    assert len(shares) >= len(PROMPT.split()) + 2
    whole = sum(float(share.removesuffix(" %")) for share in shares)
    assert abs(whole - 100) < 5


@pytest.mark.slow
def test_the_steps_are_scrubbed_by_touch_and_by_keys(inside: Phone) -> None:
    slider = inside.page.get_by_role("slider", name="Steps")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("^Step 2 of 2, signal"))
    last = inside.page.get_by_role("img", name="Guess, Step 2 of 2").get_attribute("src")

    slider.press("ArrowLeft")

    expect(slider).to_have_attribute("aria-valuetext", re.compile("^Step 1 of 2, signal"))
    for name in ("Guess", "Noise", "Latents"):
        shown = inside.page.get_by_role("img", name=f"{name}, Step 1 of 2")
        assert shown.evaluate("i => i.decode().then(() => i.naturalWidth)") > 0
        assert shown.get_attribute("src") != last


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False])
def test_a_picture_made_again_is_compared_and_not_kept_twice(mobile: Phone, exact: bool) -> None:
    made = mobile.server.txt2img("a cat", exact=exact, num_images=1).json()
    look_for = re.compile("byte for byte" if exact else "the same (file|picture)")
    mobile.open(f"#/inside/{made['images'][0]['id']}")
    mobile.press("Make it again")

    expect(mobile.page.locator(".inside-same")).to_have_text(look_for)
    pictures = mobile.server.http.get("/jobs?limit=3").json()["jobs"]
    copy = next(job for job in pictures if job["request"].get("explain"))
    eventually(lambda: mobile.server.http.get(f"/jobs/{copy['id']}").json()["images"] == [])
    assert copy["request"]["seed"] == made["images"][0]["seed"]
    assert mobile.server.http.get(f"/images/{made['images'][0]['id']}").status_code == 200


@pytest.mark.slow
def test_one_of_several_pictures_is_made_again_alone(mobile: Phone) -> None:
    made = mobile.server.txt2img("a cat", num_images=2).json()
    mobile.open(f"#/job/{made['id']}")
    mobile.press("Show picture 2")
    mobile.press("Look inside")
    mobile.press("Make it again")

    expect(mobile.page.locator(".inside-same")).to_have_text(re.compile("the same picture"))


@pytest.mark.slow
def test_what_was_looked_into_opens_without_the_server(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path) as server, phone(browser, server) as mobile:
        made = server.txt2img(PROMPT).json()["images"][0]["id"]
        mobile.open()
        mobile.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        look(mobile, made)
        mobile.context.set_offline(True)
        server.process.terminate()
        server.process.wait()

        mobile.page.goto("about:blank")
        mobile.page.goto(f"{server.url}/#/gallery")
        mobile.press(PROMPT)

        mobile.press("fox")
        eventually(lambda: contrast(mobile) > 100)
        shown = mobile.page.get_by_role("img", name=PROMPT)
        assert shown.evaluate("i => i.decode().then(() => i.naturalWidth)") == 128
        mobile.press("Back")
        expect(mobile.page.get_by_role("button", name=PROMPT)).to_be_visible()
        mobile.page.goto(f"{server.url}/#/inside/{made.replace(made[:4], '0000')}")
        expect(mobile.page.get_by_role("alert").last).to_contain_text("does not answer")
        assert mobile.errors == []


@pytest.mark.slow
def test_a_deleted_picture_is_forgotten(mobile: Phone) -> None:
    made = mobile.server.txt2img("a cat", explain=True).json()["images"][0]["id"]
    kept = "(JSON.parse(localStorage.getItem('darkroom.explained')) ?? []).map(e => e.pictureId)"
    mobile.open(f"#/inside/{made}")
    mobile.button("cat").wait_for()
    assert made in mobile.page.evaluate(kept)
    mobile.press("Back")

    mobile.press("Delete")

    eventually(lambda: made not in mobile.page.evaluate(kept))


@pytest.mark.slow
def test_what_cannot_be_looked_into_says_why(browser: Browser, tmp_path: Path) -> None:
    """A job that is gone, an edit by instruction, and a picture whose model is gone."""
    models = tmp_path / "models"
    tiny_families.flux2_klein_distilled(models / "klein")
    shutil.copytree(TINTYPE, models / "sold")
    with running(tmp_path) as server:
        sold = server.txt2img("a cat", model="sold").json()["images"][0]["id"]
        body = {"prompt": "a dog", "references": [f"image:{sold}"], "model": "klein"}
        edited = server.http.post("/edit", json={**body, "num_inference_steps": 2}).json()
        shutil.rmtree(models / "sold")
        eventually(lambda: '"sold"' not in server.http.get("/models").text)
        for picture, sentence in {
            f"{'0' * 24}-0": "does not have this picture",
            edited["images"][0]["id"]: "cannot look inside",
            sold: "does not have the model “sold”",
        }.items():
            with phone(browser, server) as mobile:
                mobile.open(f"#/inside/{picture}")
                expect(mobile.page.get_by_role("alert")).to_contain_text(sentence)
                expect(mobile.button("Make it again")).to_have_count(0)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "vi"])
def test_a_narrow_phone_has_room_for_it(
    browser: Browser, server: RunningServer, picture: str, language: str
) -> None:
    with phone(browser, server, screen={"width": 320, "height": 640}) as mobile:
        mobile.context.add_init_script(
            f"""if (location.origin !== "null")
                localStorage.setItem("darkroom.language", '"{language}"');"""
        )
        mobile.open(f"#/inside/{picture}")
        mobile.page.locator(".inside .primary").click()
        mobile.press("fox")
        assert mobile.page.evaluate(TOO_WIDE) == []
        if language == "vi":
            expect(said(mobile)).to_have_text(re.compile("^“fox”: nhiều nhất ở"))
