"""The mobile client's gallery: five hundred pictures under a thumb."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.browser.many import fill
from tests.browser.phone import Phone, phone
from tests.serving import RunningServer, running
from tests.waiting import eventually

pytestmark = pytest.mark.slow

COUNT = 500
FEW = 30


@pytest.fixture(scope="module")
def full_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Five hundred pictures of the last days; nobody makes more."""
    with running(tmp_path_factory.mktemp("full"), process="web") as started:
        fill(started, COUNT)
        yield started


@pytest.fixture
def gallery(browser: Browser, full_server: RunningServer) -> Iterator[Phone]:
    with phone(browser, full_server) as opened:
        opened.open("#/gallery").page.locator(".tile").first.wait_for()
        yield opened
        assert opened.errors == []


def tiles(gallery: Phone) -> Locator:
    return gallery.page.locator(".tile")


def names(gallery: Phone) -> list[str]:
    found: list[str] = tiles(gallery).evaluate_all("all => all.map(e => e.ariaLabel)")
    return found


def scroll(gallery: Phone, screens: float) -> bool:
    """As a thumb does, in a few frames; whether it moved."""
    moved: bool = gallery.page.evaluate(
        """async screens => {
            const list = document.querySelector(".gallery-scroll");
            const before = list.scrollTop;
            for (let part = 0; part < 4; part += 1) {
                list.scrollTop += list.clientHeight * screens / 4;
                await new Promise(requestAnimationFrame);
            }
            return list.scrollTop !== before;
        }""",
        screens,
    )
    return moved


def footprint(gallery: Phone, enough: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """DOM nodes, and bytes of JavaScript's heap, after what nobody holds was collected.

    What scripts let go of frees its nodes some collections later, when images are decoded: on a
    busy machine much later. Collecting goes on until the figures are below `enough`, for a while.
    """
    gallery.protocol.send("Performance.enable")
    least = (sys.maxsize, sys.maxsize)
    for _ in range(12 if enough == (0, 0) else 120):
        gallery.protocol.send("HeapProfiler.collectGarbage")
        measured = gallery.protocol.send("Performance.getMetrics")["metrics"]
        values = {metric["name"]: int(metric["value"]) for metric in measured}
        least = min(least, (values["Nodes"], values["JSHeapUsedSize"]))
        if least[0] < enough[0] and least[1] < enough[1]:
            break
        gallery.page.wait_for_timeout(250)
    return least


@pytest.mark.slow
def test_five_hundred_pictures_scroll_by_and_memory_does_not_grow(gallery: Phone) -> None:
    seen: dict[str, None] = {}
    for _ in range(3):
        seen.update(dict.fromkeys(names(gallery)))
        scroll(gallery, 1)
    expect(tiles(gallery).nth(FEW)).to_be_attached()  # as many as there will be
    nodes, heap = footprint(gallery)
    most_tiles = 0

    for _ in range(200):
        shown = names(gallery)
        most_tiles = max(most_tiles, len(shown))
        seen.update(dict.fromkeys(shown))
        if len(seen) == COUNT:
            break
        if not scroll(gallery, 1):
            gallery.page.wait_for_timeout(50)  # the next page is on its way

    assert list(seen) == [f"picture {index}" for index in reversed(range(COUNT))]
    assert most_tiles < 90
    enough = (nodes * 3 // 2 + 200, heap + 2_000_000)
    nodes_after, heap_after = footprint(gallery, enough)
    assert nodes_after < enough[0]
    assert heap_after < enough[1]
    expect(tiles(gallery).last).to_have_accessible_name("picture 0")


def test_pictures_stand_under_their_days(gallery: Phone) -> None:
    days = gallery.page.locator(".gallery-day")

    expect(days.first).to_have_text(re.compile("Today|Yesterday"))
    scroll(gallery, 4)
    expect(days.first).to_have_text(re.compile(r"^[A-Z][a-z]+day"))


def test_a_picture_opens_turns_into_its_neighbour_and_closes_where_one_was(gallery: Phone) -> None:
    for _ in range(4):
        scroll(gallery, 1)
    labels = names(gallery)
    name, older = labels[len(labels) // 2 :][:2]
    gallery.page.locator(f'.tile[aria-label="{name}"]').click()
    shown = gallery.page.locator(".viewer-prompt")
    expect(shown).to_have_text(name)
    place = gallery.page.evaluate("document.querySelector('.gallery-scroll').scrollTop")

    gallery.drag((320, 390), (60, 400))
    expect(shown).to_have_text(older)
    gallery.drag((60, 390), (320, 400))
    expect(shown).to_have_text(name)
    gallery.page.keyboard.press("Escape")

    expect(gallery.page.get_by_role("dialog")).to_have_count(0)
    assert gallery.page.evaluate("document.querySelector('.gallery-scroll').scrollTop") == place


def test_a_picture_is_zoomed_by_two_fingers_and_by_a_double_tap(gallery: Phone) -> None:
    tiles(gallery).nth(3).click()
    zoom = gallery.page.locator(".viewer-slide:not([aria-hidden=true]) .viewer-zoom")

    def scale() -> float:
        value: float = zoom.evaluate("e => new DOMMatrix(getComputedStyle(e).transform).a")
        return value

    gallery.page.locator(".viewer-actions").wait_for()
    gallery.spread((195, 390), 80, 240)
    eventually(lambda: scale() == pytest.approx(3, rel=0.05), about=scale)
    for _ in range(2):
        gallery.page.touchscreen.tap(195, 390)
    gallery.page.wait_for_function(
        "e => new DOMMatrix(e.style.transform).a === 1", arg=zoom.element_handle()
    )


def test_deleting_can_be_undone_before_it_is_done(gallery: Phone) -> None:
    first, second = names(gallery)[:2]
    gallery.press("Select")
    tiles(gallery).nth(0).click()
    tiles(gallery).nth(1).click()
    expect(gallery.page.get_by_role("heading", name="2 selected")).to_be_visible()
    gallery.press("Delete")
    expect(tiles(gallery).first).not_to_have_accessible_name(re.compile(f"^({first}|{second})$"))

    gallery.press("Undo")

    eventually(lambda: names(gallery)[:2] == [first, second], about=lambda: names(gallery)[:2])
    assert len(_ids(gallery)) == len(_all(gallery))


def test_what_is_deleted_is_gone_from_the_server(gallery: Phone) -> None:
    doomed = names(gallery)[:3]
    before = _ids(gallery)
    gallery.page.clock.install()
    gallery.press("Select")
    for index in range(3):
        tiles(gallery).nth(index).click()
    gallery.press("Delete")

    last = f"{int(doomed[-1].split()[1]):024x}-0"
    with gallery.page.expect_response(lambda answer: answer.url.endswith(last)):
        gallery.page.clock.fast_forward(10_000)

    expect(gallery.page.get_by_text("3 pictures deleted")).to_have_count(0)
    eventually(lambda: set(doomed).isdisjoint(names(gallery)))
    assert before - _ids(gallery) == {f"{int(name.split()[1]):024x}-0" for name in doomed}


def test_all_means_all_and_so_many_are_asked_about(gallery: Phone) -> None:
    gallery.press("Select")
    gallery.press("All")
    total = len(_all(gallery))
    expect(gallery.page.get_by_role("heading", name=f"{total} of {total} selected")).to_be_visible()

    gallery.press("Delete")
    question = gallery.page.get_by_role("dialog", name=f"Delete {total} pictures?")
    expect(question).to_be_visible()
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_have_count(0)
    assert len(_all(gallery)) == total

    gallery.press("None")
    expect(gallery.page.get_by_role("heading", name="0 selected")).to_be_visible()


def test_more_than_a_few_are_deleted_only_after_a_yes(gallery: Phone) -> None:
    doomed = names(gallery)[:4]
    gallery.press("Select")
    for index in range(4):
        tiles(gallery).nth(index).click()
    gallery.press("Delete")
    assert names(gallery)[:4] == doomed

    gallery.press("Delete 4")

    eventually(lambda: set(doomed).isdisjoint(names(gallery)))
    gallery.press("Undo")
    eventually(lambda: names(gallery)[:4] == doomed)


def test_a_keyboard_selects_and_looks(gallery: Phone) -> None:
    keyboard = gallery.page.keyboard
    shown = names(gallery)
    tiles(gallery).nth(1).click(modifiers=["Control"])
    tiles(gallery).nth(3).click(modifiers=["Shift"])
    expect(gallery.page.get_by_role("heading", name="3 selected")).to_be_visible()
    keyboard.press("Escape")
    expect(gallery.page.get_by_role("heading", name="3 selected")).to_have_count(0)

    tiles(gallery).first.focus()
    keyboard.press("ArrowRight")
    keyboard.press("ArrowDown")
    keyboard.press("ArrowUp")
    expect(tiles(gallery).nth(1)).to_be_focused()
    keyboard.press("Enter")

    prompt = gallery.page.locator(".viewer-prompt")
    expect(prompt).to_have_text(shown[1])
    keyboard.press("ArrowRight")
    expect(prompt).to_have_text(shown[2])
    gallery.button("Newer picture").focus()
    keyboard.press("Enter")
    expect(prompt).to_have_text(shown[1])
    keyboard.press("ArrowLeft")
    expect(prompt).to_have_text(shown[0])
    keyboard.press("Delete")
    expect(prompt).to_have_text(shown[1])
    gallery.press("Undo")
    keyboard.press("Escape")
    eventually(lambda: names(gallery)[:2] == shown[:2])


def test_a_long_press_begins_to_select(gallery: Phone) -> None:
    box = tiles(gallery).nth(4).bounding_box()
    assert box
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    gallery.fingers("touchStart", [middle])
    expect(gallery.page.get_by_role("heading", name="1 selected")).to_be_visible()
    gallery.fingers("touchEnd", [])

    expect(gallery.page.get_by_role("heading", name="1 selected")).to_be_visible()


def test_an_empty_gallery_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path, process="web") as server, phone(browser, server) as mobile:
        mobile.open("#/gallery")
        expect(mobile.page.get_by_role("heading", name="No pictures yet")).to_be_visible()

        mobile.press("Create a picture")

        expect(mobile.page.get_by_role("textbox", name="Prompt", exact=True)).to_be_visible()


def _all(gallery: Phone) -> list[dict[str, object]]:
    """The images that the server has, of all pages."""
    images: list[dict[str, object]] = []
    cursor = ""
    while cursor is not None:
        page = gallery.server.http.get(f"/jobs?limit=100{cursor}").json()
        images += [image for job in page["jobs"] for image in job["images"]]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    return images


def _ids(gallery: Phone) -> set[object]:
    return {image["id"] for image in _all(gallery)}
