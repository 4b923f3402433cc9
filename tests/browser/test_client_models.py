"""The page of models: an owner downloads and deletes, others look."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.phone import TOO_WIDE, Phone, phone
from tests.browser.test_client_pairing import pair
from tests.catalog import hub_server
from tests.catalog.conftest import folder, tensors_of, write
from tests.catalog.hub_server import Hub
from tests.security.doors import PASSED_ON
from tests.serving import RunningServer, running
from tests.waiting import eventually

FOX = "studio/fox"
SMALL = {"width": 320, "height": 640}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    box = tmp_path_factory.mktemp("hub")
    (box / "models").mkdir()
    with hub_server.serving() as hub:
        hub.add(FOX, folder(box, "fox"))
        hub.add("studio/cat", folder(box, "cat"))
        yield hub


@pytest.fixture(scope="module")
def house(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data = tmp_path_factory.mktemp("models")
    with running(data, process="web", HF_ENDPOINT=hub.url, HF_HOME=str(data / "hf")) as server:
        yield server


@pytest.fixture
def owner(browser: Browser, house: RunningServer) -> Iterator[Phone]:
    with phone(browser, house, screen=SMALL) as opened:
        yield opened
        assert opened.errors == []


def open_models(mobile: Phone) -> None:
    mobile.open()
    mobile.tab("Settings")
    mobile.page.get_by_role("button", name=re.compile("^Models on this server")).click()
    expect(mobile.page.get_by_role("heading", name="Models", level=1)).to_be_visible()


def fits_the_screen(mobile: Phone) -> None:
    assert mobile.page.evaluate(TOO_WIDE) == []


@pytest.mark.slow
def test_an_owner_downloads_a_model_and_deletes_it(
    owner: Phone, hub: Hub, house: RunningServer
) -> None:
    page = owner.page
    open_models(owner)
    expect(page.get_by_role("button", name=re.compile("^tintype sd"))).to_be_visible()

    field = page.get_by_role("textbox", name="Name or address")
    field.fill(FOX)
    field.press("Enter")
    expect(page.get_by_role("button", name="Download", exact=True)).to_be_enabled()
    expect(page.get_by_text("Free on the disk")).to_be_visible()
    fits_the_screen(owner)
    hub.held.clear()
    owner.press("Download")
    bar = page.get_by_role("progressbar", name="Download of fox")
    expect(bar).to_be_visible()
    eventually(lambda: float(bar.get_attribute("value") or 0) > 0)
    fits_the_screen(owner)
    hub.held.set()

    row = page.get_by_role("button", name=re.compile("^fox"))
    expect(row).to_be_visible()
    expect(bar).to_have_count(0)
    row.click()
    owner.press("Delete from the server")
    expect(page.get_by_role("alert")).to_contain_text("Delete “fox”")
    page.get_by_role("button", name="Delete", exact=True).click()

    expect(row).to_have_count(0)
    assert not (house.data_dir / "models" / "fox").exists()


@pytest.mark.slow
def test_a_download_is_cancelled(owner: Phone, hub: Hub, house: RunningServer) -> None:
    hub.held.clear()
    house.http.post("/models/pull", json={"source": "studio/cat"}).raise_for_status()
    open_models(owner)

    owner.press("Cancel the download of cat")
    owner.press("Stop")

    expect(owner.page.get_by_role("progressbar")).to_have_count(0)
    hub.held.set()
    assert not (house.data_dir / "models" / "cat").exists()


@pytest.mark.slow
def test_what_the_hub_says_is_said_in_plain_words_and_in_vietnamese(owner: Phone, hub: Hub) -> None:
    hub.gated.add(FOX)
    open_models(owner)
    field = owner.page.get_by_role("textbox", name="Name or address")
    try:
        field.fill(FOX)
        field.press("Enter")
        expect(owner.page.get_by_role("alert")).to_contain_text("accept its terms on the hub")
        owner.page.goto(f"{owner.server.url}/#/settings")
        owner.page.get_by_label("Language").select_option("vi")
        owner.page.goto(f"{owner.server.url}/#/models")
        field = owner.page.get_by_role("textbox", name="Tên hoặc địa chỉ")
        field.fill(FOX)
        field.press("Enter")
        expect(owner.page.get_by_role("alert")).to_contain_text("hãy đồng ý điều khoản")
    finally:
        hub.gated.clear()


def test_files_of_the_server_say_why_they_stay(owner: Phone) -> None:
    open_models(owner)
    owner.page.get_by_role("button", name=re.compile("^tintype.*default")).click()
    expect(owner.page.get_by_text("It cannot be deleted here")).to_be_visible()


@pytest.mark.slow
def test_others_look_and_change_nothing(browser: Browser, house: RunningServer) -> None:
    (house.data_dir / "models").mkdir(exist_ok=True)
    path = write(house.data_dir / "models" / "ink.safetensors", tensors_of("sd1"))
    try:
        with phone(browser, house, extra_http_headers=PASSED_ON) as guest:
            pair(guest, "A guest")
            open_models(guest)
            expect(guest.page.get_by_role("textbox")).to_have_count(0)
            guest.page.get_by_role("button", name=re.compile("^ink")).click()
            expect(guest.page.get_by_text("Family")).to_be_visible()
            expect(guest.button("Delete from the server")).to_have_count(0)
    finally:
        Path(path).unlink()
