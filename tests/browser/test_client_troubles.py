"""What the mobile client says while the server or the browser cannot do something."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.phone import DEVELOPING_MS, Phone, phone
from tests.serving import RunningServer
from tests.waiting import eventually

NO_ANSWER = "The server does not answer."
# What the browsers' own sharing needs, and what tests cannot have: a phone. It keeps its rule.
SHARING = """
    navigator.canShare = () => true;
    window.shared = [];
    navigator.share = async ({ files }) => {
        if (window.refusal) throw window.refusal;
        if (!navigator.userActivation.isActive) throw new DOMException("", "NotAllowedError");
        window.shared.push(files.map(file => [file.name, file.type, file.size]));
    };
"""


@pytest.fixture
def first_visit(browser: Browser, server: RunningServer) -> Iterator[Phone]:
    """A phone that has kept nothing, and has not loaded the client yet.

    Without a service worker: requests that pass through one are not always intercepted.
    """
    with phone(browser, server, service_workers="block") as opened:
        yield opened
        assert opened.errors == []


@pytest.fixture
def mobile(first_visit: Phone) -> Phone:
    return first_visit.open()


def stop_clock(page: Page) -> None:
    """Nothing happens by a timer any more."""
    page.clock.install()
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 60)  # not past before it arrives


def test_any_answer_ends_the_banner(mobile: Phone) -> None:
    banner = mobile.page.get_by_text(NO_ANSWER)

    def is_told() -> bool:
        mobile.press("Refresh")  # again and again: an earlier one may still be under way
        return banner.is_visible()

    mobile.page.route("**/*", lambda route: route.abort())
    mobile.tab("Gallery")
    eventually(is_told)
    stop_clock(mobile.page)  # so that the next look by itself never comes
    mobile.page.unroute_all()

    eventually(lambda: not is_told())


@pytest.mark.slow
def test_no_time_is_promised_while_the_server_is_away(mobile: Phone) -> None:
    mobile.server.txt2img("a red fox")  # so that there is an estimate
    mobile.develop("a red fox", steps=60)
    left = mobile.page.get_by_text(re.compile("^about .* left$"))
    expect(left).to_be_visible()

    mobile.context.set_offline(True)

    expect(mobile.page.get_by_text(NO_ANSWER)).to_be_visible()
    expect(left).to_have_count(0)
    mobile.context.set_offline(False)
    mobile.wait_for_picture()


@pytest.mark.slow
def test_pictures_that_could_not_be_loaded_are_shown_when_the_server_is_back(
    mobile: Phone,
) -> None:
    mobile.server.txt2img("a red fox")
    mobile.page.route("**/images/**", lambda route: route.abort())
    mobile.tab("Gallery")
    tile = mobile.page.locator(".tile img").first
    expect(tile).to_have_attribute("hidden", "")

    mobile.page.unroute_all()
    mobile.context.set_offline(True)
    mobile.press("Refresh")
    expect(mobile.page.get_by_text(NO_ANSWER)).to_be_visible()
    mobile.context.set_offline(False)

    expect(tile).to_be_visible()
    assert tile.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_a_photo_that_is_picked_before_the_models_came_waits(
    first_visit: Phone, photo: Path
) -> None:
    mobile = first_visit
    held: list[Route] = []
    mobile.page.route("**/models", lambda route: held.append(route))
    mobile.open()
    library = mobile.page.get_by_test_id("library")

    library.set_input_files(photo)
    layer = mobile.page.get_by_role("region", name="Crop")
    expect(layer).to_contain_text("Waiting for the server’s model list")
    mobile.press("Cancel")
    mobile.write("a cat")  # nothing is frozen
    library.set_input_files(photo)
    for route in held:
        route.continue_()
    mobile.page.unroute_all()

    expect(mobile.button("Use photo")).to_be_visible(timeout=DEVELOPING_MS)


@pytest.mark.slow
@pytest.mark.parametrize("status", [500, pytest.param(502, marks=pytest.mark.slow)])
def test_an_error_without_words_is_told_and_the_request_is_sent_again(
    mobile: Phone, status: int
) -> None:
    mobile.page.route("**/txt2img", lambda route: route.fulfill(status=status, body=""))
    mobile.develop("a red fox", steps=2)

    expect(mobile.page.get_by_text(f"error {status}")).to_be_visible()
    mobile.page.unroute_all()

    mobile.wait_for_picture()


@pytest.mark.slow
def test_a_request_behind_another_one_says_so(mobile: Phone) -> None:
    mobile.page.route("**/txt2img", lambda route: route.fulfill(status=500, body=""))
    mobile.develop("a red fox", steps=2)
    mobile.tab("Create")
    mobile.develop("a green frog", steps=2)

    expect(mobile.page.get_by_text("Waits until your earlier request is sent")).to_be_visible()
    mobile.page.unroute_all()
    mobile.wait_for_picture()


def test_a_picture_is_shared_while_the_tap_lasts(mobile: Phone) -> None:
    mobile.context.add_init_script(SHARING)
    job = mobile.server.txt2img("a red fox").json()
    fetched = re.compile(rf"/images/{job['id']}-0$")
    with mobile.page.expect_response(
        lambda answer: bool(fetched.search(answer.url)) and answer.request.resource_type == "fetch"
    ) as answer:
        mobile.open(f"#/job/{job['id']}")
    answer.value.finished()
    mobile.page.route("**/images/**", lambda route: route.abort())  # nothing is fetched any more

    mobile.press("Share")

    mobile.page.wait_for_function("() => window.shared.length === 1")
    [[name, kind, size]] = mobile.page.evaluate("() => window.shared[0]")
    assert name.endswith(".png")
    assert (kind, size) == ("image/png", job["images"][0]["bytes"])


@pytest.mark.slow
def test_a_share_that_fails_is_told(mobile: Phone) -> None:
    mobile.context.add_init_script(SHARING)
    made = mobile.server.txt2img("a red fox").json()["images"][0]["id"]
    mobile.open(f"#/picture/{made}")

    mobile.page.evaluate("() => { window.refusal = new DOMException('', 'NotAllowedError') }")
    mobile.press("Share")
    again = mobile.page.locator(".toast", has_text="ready to share now")
    expect(again).to_be_visible()
    mobile.page.evaluate("() => { window.refusal = undefined }")
    again.get_by_role("button", name="Share").click()
    mobile.page.wait_for_function("() => window.shared.length === 1")

    mobile.page.evaluate("() => { window.refusal = new DOMException('', 'DataError') }")
    mobile.press("Share")
    told = mobile.page.locator(".toast", has_text="could not be shared")
    with mobile.page.expect_download() as download:
        told.get_by_role("button", name="Save").click()
    assert download.value.suggested_filename.endswith(".png")


@pytest.mark.slow
def test_settings_say_what_this_browser_can_do_and_how_to_get_the_rest(mobile: Phone) -> None:
    # As over plain HTTP from another machine; the loopback address counts as secure.
    mobile.context.add_init_script(
        "Object.defineProperty(window, 'isSecureContext', { get: () => false })"
    )
    mobile.open("#/settings")
    expect(mobile.page.get_by_text("Notifications need HTTPS")).to_be_visible()
    abilities = mobile.page.get_by_role("listitem").filter(has_text="Open the app without")
    expect(abilities).to_contain_text("No")

    mobile.press("How to turn on HTTPS")

    steps = mobile.page.get_by_role("dialog", name="How to turn on HTTPS")
    address = mobile.server.url.replace("http://", "https://") + "/ca"
    expect(steps.get_by_role("link", name=address)).to_be_visible()
