"""How a phone gets in, lets others in, and what it says when it is let out again."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.browser.phone import DEVELOPING_MS, Phone, phone
from tests.security.doors import PASSED_ON
from tests.serving import RunningServer

pytestmark = pytest.mark.slow


@pytest.fixture
def stranger(browser: Browser, server: RunningServer) -> Iterator[Phone]:
    """A phone on the local network that the server has never seen."""
    with phone(browser, server, extra_http_headers=PASSED_ON) as opened:
        yield opened
        assert opened.errors == []


def scan(device: Phone, code: dict[str, Any]) -> None:
    """Open what the QR code says."""
    _, _, place = code["url"].partition("/#")
    device.page.goto(f"{device.server.url}/#{place}")


def code_for(server: RunningServer, scope: str) -> dict[str, Any]:
    answer = server.http.post("/pair/codes", json={"scope": scope})
    code: dict[str, Any] = answer.json()
    return code


def pair(device: Phone, name: str, scope: str = "use") -> None:
    scan(device, code_for(device.server, scope))
    device.page.get_by_role("textbox", name="Name of this device").fill(name)
    device.press("Pair")
    device.page.get_by_role("textbox", name="Prompt", exact=True).wait_for()


def token_id(server: RunningServer, name: str) -> str:
    (found,) = (
        each for each in server.http.get("/tokens").json()["tokens"] if each["name"] == name
    )
    identity: str = found["id"]
    return identity


def test_a_scanned_code_lets_a_phone_in_for_good(stranger: Phone) -> None:
    pair(stranger, "Lan's phone")
    stranger.open().develop("a red fox")

    stranger.wait_for_picture()
    assert stranger.job()["client"] == "Lan's phone"


def test_a_stranger_is_asked_for_a_code_and_told_of_a_wrong_one(stranger: Phone) -> None:
    stranger.page.goto(stranger.server.url)
    stranger.page.get_by_role("heading", name="Pair this device").wait_for()

    stranger.page.get_by_role("textbox", name="Pairing code").fill("AAAA-BBBB")
    stranger.press("Pair")

    expect(stranger.page.get_by_role("alert")).to_contain_text("This code is wrong")


def test_a_code_is_good_for_one_device(stranger: Phone, browser: Browser) -> None:
    code = code_for(stranger.server, "use")
    scan(stranger, code)
    stranger.press("Pair")
    stranger.page.get_by_role("textbox", name="Prompt", exact=True).wait_for()

    with phone(browser, stranger.server, extra_http_headers=PASSED_ON) as second:
        scan(second, code)
        second.press("Pair")
        expect(second.page.get_by_role("alert")).to_contain_text("used before")


def test_a_phone_whose_access_is_taken_away_says_so(stranger: Phone) -> None:
    pair(stranger, "A lost phone")
    identity = token_id(stranger.server, "A lost phone")

    assert stranger.server.http.delete(f"/tokens/{identity}").status_code == 204
    stranger.develop("a red fox")

    told = stranger.page.get_by_text("This device’s access was revoked")
    told.wait_for(timeout=DEVELOPING_MS)
    stranger.page.get_by_role("heading", name="Pair this device").wait_for()


def test_what_was_asked_while_locked_out_is_sent_after_pairing_anew(stranger: Phone) -> None:
    pair(stranger, "A found phone")
    identity = token_id(stranger.server, "A found phone")
    stranger.server.http.delete(f"/tokens/{identity}")
    stranger.develop("a yellow star")
    stranger.page.get_by_role("heading", name="Pair this device").wait_for()

    pair(stranger, "A phone found again")
    stranger.page.get_by_role("region", name="In progress").get_by_role("link").first.click()

    stranger.wait_for_picture()
    job = stranger.job()
    assert (job["client"], job["request"]["prompt"]) == ("A phone found again", "a yellow star")


def test_an_owners_phone_lets_another_one_in(stranger: Phone, browser: Browser) -> None:
    pair(stranger, "The owner's phone", scope="own")
    stranger.tab("Settings")
    stranger.press("Pair another device")

    image = stranger.page.get_by_role("img", name="QR code of the address")
    stranger.page.wait_for_function("i => i.naturalWidth > 0", arg=image.element_handle())
    code = stranger.page.locator(".invitation .code").inner_text()
    with phone(browser, stranger.server, extra_http_headers=PASSED_ON) as guest:
        guest.page.goto(guest.server.url)
        guest.page.get_by_role("textbox", name="Pairing code").fill(code)
        guest.press("Pair")
        guest.page.get_by_role("textbox", name="Prompt", exact=True).wait_for()


def test_a_forgotten_server_forgets_the_phone_too(stranger: Phone) -> None:
    pair(stranger, "A sold phone")
    stranger.tab("Settings")
    stranger.press("Forget this server")
    with stranger.page.expect_response(lambda answer: "/tokens/" in answer.url) as revoking:
        stranger.page.get_by_role("alert").get_by_role("button", name="Forget this server").click()

    assert revoking.value.status == 204
    stranger.page.get_by_role("heading", name="Pair this device").wait_for()
    names = [each["name"] for each in stranger.server.http.get("/tokens").json()["tokens"]]
    assert "A sold phone" not in names


# --- devices ---


def open_device(owner: Phone, name: str) -> Locator:
    """The sheet of a device in the owner's settings."""
    owner.tab("Settings")
    owner.page.get_by_role("button", name=re.compile(f"^{re.escape(name)} ")).click()
    return owner.page.get_by_role("dialog", name=name)


def test_a_phone_that_lost_its_cookie_finds_its_pictures_again(
    stranger: Phone, browser: Browser
) -> None:
    pair(stranger, "Minh's phone")
    stranger.develop("a red fox", steps=2)
    stranger.wait_for_picture()
    stranger.context.clear_cookies()

    with phone(browser, stranger.server) as owner:  # on the server's own machine
        sheet = open_device(owner.open(), "Minh's phone")
        sheet.get_by_role("button", name="New code for this device").click()
        code = sheet.locator(".code").inner_text()
    stranger.open().page.get_by_role("textbox", name="Pairing code").fill(code)
    stranger.press("Pair")
    stranger.page.get_by_role("textbox", name="Prompt", exact=True).wait_for()

    stranger.tab("Gallery")
    expect(stranger.page.locator(".tile")).to_have_count(1)
    expect(stranger.page.locator(".tile")).to_have_accessible_name("a red fox")


def test_an_owner_renames_a_device_sees_its_pictures_and_sends_it_away(
    stranger: Phone, browser: Browser
) -> None:
    pair(stranger, "A guest")
    stranger.develop("a green frog", steps=2)
    stranger.wait_for_picture()
    with phone(browser, stranger.server) as owner:
        sheet = open_device(owner.open(), "A guest")
        sheet.get_by_role("textbox", name="Name").fill("A known guest")
        sheet.get_by_role("button", name="Rename").click()
        expect(sheet).to_have_count(0)

        sheet = open_device(owner, "A known guest")
        sheet.get_by_role("button", name="Show its pictures").click()
        expect(owner.page.locator(".tile")).to_have_count(1)
        expect(owner.page.locator(".tile")).to_have_accessible_name("a green frog")
        owner.press("A known guest")  # the filter: back to the pictures of this device
        expect(owner.button("Everyone")).to_be_visible()

        sheet = open_device(owner, "A known guest")
        sheet.get_by_role("button", name="Revoke access").click()
        sheet.get_by_role("alert").get_by_role("button", name="Revoke access").click()
        device = owner.page.get_by_role("button", name=re.compile("^A known guest "))
        expect(device).to_contain_text("no access")
        assert owner.errors == []
    assert stranger.page.evaluate("fetch('/me').then(answer => answer.status)") == 401


def test_two_devices_of_one_name_have_galleries_of_their_own(
    stranger: Phone, browser: Browser
) -> None:
    pair(stranger, "Linux", scope="own")
    with phone(browser, stranger.server, extra_http_headers=PASSED_ON) as guest:
        pair(guest, "Linux")
        guest.develop("a strawberry", steps=2)
        guest.wait_for_picture()
        assert guest.job()["client"] != "Linux"

    stranger.tab("Gallery")

    expect(stranger.page.get_by_role("heading", name="No pictures yet")).to_be_visible()


def test_a_wrong_code_is_told_in_vietnamese(stranger: Phone) -> None:
    stranger.context.add_init_script(
        """if (location.protocol === "http:") localStorage.setItem("darkroom.language", '"vi"')"""
    )
    stranger.page.goto(stranger.server.url)
    stranger.page.get_by_role("textbox", name="Mã ghép nối").fill("AAAA-BBBB")
    stranger.press("Ghép nối")

    expect(stranger.page.get_by_role("alert")).to_have_text(
        "Mã này sai, đã dùng rồi hoặc quá cũ. Hãy lấy mã mới."
    )
