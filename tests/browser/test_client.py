"""The mobile client on a phone: from words, photographs and painted masks to pictures."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.browser.phone import DEVELOPING_MS, TOO_WIDE, Phone, phone
from tests.catalog.conftest import checkpoint
from tests.engine import tiny_families
from tests.serving import RunningServer, running


def test_words_become_a_picture_on_the_screen(mobile: Phone) -> None:
    mobile.develop("a red fox")

    mobile.wait_for_picture()
    job = mobile.job()
    assert job["task"] == "txt2img"
    assert job["request"]["prompt"] == "a red fox"
    shown = mobile.page.evaluate("i => i.naturalWidth", mobile.picture.element_handle())
    assert shown == job["images"][0]["width"]


@pytest.mark.slow
def test_the_demo_model_says_what_it_is_and_draws_an_example(mobile: Phone) -> None:
    mobile.open()
    expect(mobile.page.get_by_text("Demo model")).to_contain_text("darkroom models pull")

    mobile.press("a cat")
    mobile.press("Develop")

    mobile.wait_for_picture()
    assert mobile.job()["request"]["prompt"] == "a cat"


@pytest.mark.slow
def test_one_sees_it_develop(mobile: Phone) -> None:
    mobile.develop("a red fox", steps=60)

    mobile.page.get_by_role("img", name="Preview of: a red fox").wait_for(timeout=DEVELOPING_MS)
    bar = mobile.page.get_by_role("progressbar")
    expect(bar).to_have_attribute("max", "60")
    mobile.page.wait_for_function(
        "bar => bar.value > 10", arg=bar.element_handle(), timeout=DEVELOPING_MS
    )
    mobile.wait_for_picture()


@pytest.mark.slow
def test_a_photo_becomes_the_beginning_of_another_picture(mobile: Phone, photo: Path) -> None:
    mobile.pick_photo(photo)
    mobile.develop("a cat")

    mobile.wait_for_picture()
    job = mobile.job()
    assert job["task"] == "img2img"
    sent = mobile.stored(job["request"]["image"])
    limits = mobile.server.http.get("/models").json()["models"][0]["limits"]
    assert sent.width * sent.height <= limits["max_pixels"]
    assert max(sent.size) <= limits["max_side"]
    assert sent.size == (job["request"]["width"], job["request"]["height"])
    with Image.open(photo) as original:
        assert np.mean(_difference(sent, original.convert("RGB").resize(sent.size))) < 12


@pytest.mark.slow
@pytest.mark.slow
def test_a_model_is_chosen_by_its_picture(browser: Browser, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    checkpoint(tmp_path, "ink")
    (tmp_path / "models" / "ink.preview.jpg").write_bytes(photo.read_bytes())
    with running(tmp_path, process="web") as server, phone(browser, server) as mobile:
        mobile.open()
        settings = mobile.page.locator("details.settings")
        settings.locator("summary").click()
        pictures = settings.get_by_role("group", name="Models by picture")
        button = pictures.get_by_role("button", name="ink")
        button.click()

        expect(settings.get_by_role("combobox", name="Model")).to_have_value("ink")
        expect(button).to_have_attribute("aria-pressed", "true")
        shown = button.locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)")
        assert shown > 0
        assert mobile.errors == []


@pytest.mark.slow
def test_two_photos_are_edited_as_the_words_say(
    browser: Browser, photo: Path, tmp_path: Path
) -> None:
    tiny_families.flux2_klein_distilled(tmp_path / "models" / "klein")
    settings = {"DARKROOM_MODELS__DEFAULT": "klein"}
    with running(tmp_path, **settings) as server, phone(browser, server) as mobile:
        mobile.open()
        mobile.pick_photo(photo)
        expect(mobile.button("Edit")).to_be_visible()
        expect(mobile.page.get_by_role("slider", name="Strength")).to_have_count(0)
        mobile.page.get_by_test_id("reference").set_input_files(photo)
        mobile.button("Use photo").click(timeout=DEVELOPING_MS)
        expect(mobile.page.get_by_role("img", name="Picture 2")).to_be_visible()

        mobile.write("the cat beside itself")
        mobile.set_steps(2)
        mobile.press("Edit")

        mobile.wait_for_picture()
        job = mobile.job()
        assert job["task"] == "edit"
        first, second = map(mobile.stored, job["request"]["references"])
        assert first.size == second.size
        assert first.width > first.height
        assert mobile.errors == []


@pytest.mark.slow
def test_a_photo_held_sideways_is_sent_upright(mobile: Phone) -> None:
    upright = Image.new("RGB", (400, 300), "white")
    upright.paste((255, 0, 0), (0, 0, 200, 150))  # red is on the left above
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me a quarter to the right"
    file = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", exif=exif, quality=95)

    mobile.pick_photo(_upload(file.getvalue()))
    mobile.develop("a flag")
    mobile.wait_for_picture()

    sent = mobile.stored(mobile.job()["request"]["image"])
    assert sent.width > sent.height
    assert _is_near(sent.getpixel((5, 5)), (255, 0, 0))
    assert _is_near(sent.getpixel((sent.width - 5, 5)), (255, 255, 255))


@pytest.mark.slow
def test_a_48_megapixel_photo_is_made_small_on_the_phone(mobile: Phone, photo: Path) -> None:
    file = io.BytesIO()
    with Image.open(photo) as small:
        small.resize((8000, 6000)).save(file, "JPEG", quality=70)
    sent: list[int] = []
    mobile.page.on(
        "request",
        lambda request: (
            sent.append(len(request.post_data_buffer or b"")) if request.method == "POST" else None
        ),
    )

    mobile.pick_photo(_upload(file.getvalue()))
    mobile.develop("a cat")
    mobile.wait_for_picture()

    assert len(sent) == 1
    assert sent[0] < 200_000


@pytest.mark.slow
def test_only_what_a_finger_painted_changes(mobile: Phone) -> None:
    source = mobile.server.txt2img("a red fox", num_inference_steps=20).json()["images"][0]
    mobile.open(f"#/picture/{source['id']}")
    mobile.press("Edit")
    mobile.press("Repaint a part")
    sheet = mobile.page.get_by_role("application", name="Picture to paint on")
    box = sheet.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    mobile.drag((x - 60, y - 40), (x + 60, y - 40), (x + 60, y + 10), (x - 60, y + 10))
    mobile.press("Done")
    mobile.develop("a blue frog")

    mobile.wait_for_picture()
    job = mobile.job()
    assert job["task"] == "inpaint"
    before, after = mobile.stored(source["id"]), mobile.stored(job["images"][0]["id"])
    mask = np.asarray(mobile.stored(job["request"]["mask_image"]).convert("L"))
    assert mask.shape == (before.height, before.width)
    assert set(np.unique(mask)) == {0, 255}
    assert 0.03 < (mask == 255).mean() < 0.5
    changed = _difference(before, after).max(axis=2) > 0
    assert not changed[mask == 0].any()
    assert changed[mask == 255].mean() > 0.5


@pytest.mark.slow
def test_a_mask_is_undone_redone_erased_and_inverted(mobile: Phone) -> None:
    source = mobile.server.txt2img("a red fox").json()["images"][0]
    mobile.open(f"#/picture/{source['id']}")
    mobile.press("Edit")
    mobile.press("Repaint a part")
    sheet = mobile.page.get_by_role("application", name="Picture to paint on")
    box = sheet.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    done = mobile.button("Done")
    expect(done).to_be_disabled()

    # Two fingers look closer and paint nothing.
    mobile.spread((x, y), 60, 200)
    expect(done).to_be_disabled()
    mobile.drag((x - 100, y), (x + 100, y))
    expect(done).to_be_enabled()
    mobile.press("Undo")
    expect(done).to_be_disabled()
    mobile.press("Redo")
    mobile.press("Clear")
    expect(done).to_be_disabled()
    mobile.press("Invert")
    mobile.press("Erase")
    mobile.drag((x - 100, y), (x + 100, y))
    mobile.press("Done")
    mobile.develop("a blue frog")

    mobile.wait_for_picture()
    mask = np.asarray(mobile.stored(mobile.job()["request"]["mask_image"]).convert("L"))
    assert mask[mask.shape[0] // 2, mask.shape[1] // 2] == 0
    assert mask[0, 0] == 255
    assert (mask == 0).mean() < 0.2


def test_a_cancelled_job_stops(mobile: Phone) -> None:
    mobile.develop("a red fox", steps=60)
    job_id = mobile.job_id

    mobile.press("Cancel")

    expect(mobile.page.get_by_role("heading", name="Cancelled")).to_be_visible()
    assert mobile.server.finished(job_id)["status"] == "cancelled"


@pytest.mark.slow
def test_the_picture_arrives_after_a_reload_in_its_midst(mobile: Phone) -> None:
    mobile.develop("a red fox", steps=60)
    job_id = mobile.job_id
    mobile.page.get_by_role("img", name="Preview of: a red fox").wait_for(timeout=DEVELOPING_MS)

    mobile.page.reload()

    mobile.wait_for_picture()
    assert mobile.job_id == job_id


@pytest.mark.slow
def test_the_picture_arrives_in_a_tab_that_was_killed(mobile: Phone) -> None:
    mobile.develop("a red fox", steps=60)
    job_id = mobile.job_id
    mobile.page.close()

    mobile.page = mobile.context.new_page()
    mobile.page.goto(mobile.server.url)

    work = mobile.page.get_by_role("region", name="In progress").get_by_role("link")
    work.click(timeout=DEVELOPING_MS)
    mobile.wait_for_picture()
    assert mobile.job_id == job_id


@pytest.mark.slow
def test_the_picture_arrives_although_the_server_is_killed(
    browser: Browser, tmp_path: Path
) -> None:
    with running(tmp_path) as server, phone(browser, server) as mobile:
        children = [server.child(name) for name in ("web", "worker")]
        mobile.open().develop("a red fox", steps=60)
        job_id = mobile.job_id
        preview = mobile.page.get_by_role("img", name="Preview of: a red fox")
        preview.wait_for(timeout=DEVELOPING_MS)

        for child in children:
            child.kill()  # the supervisor starts them again

        again = mobile.page.get_by_text("The server was interrupted")
        expect(again).to_be_visible(timeout=DEVELOPING_MS)
        mobile.wait_for_picture()
        assert mobile.job_id == job_id
        assert mobile.job()["attempts"] == 2


@pytest.mark.slow
def test_what_is_asked_offline_is_sent_when_the_network_is_back(mobile: Phone) -> None:
    latest = mobile.server.http.get("/jobs?limit=1").json()["jobs"]
    mobile.page.wait_for_load_state("networkidle")
    mobile.context.set_offline(True)
    mobile.develop("a red fox")
    waiting = mobile.page.get_by_text("Your request is sent as soon as it answers")
    waiting.wait_for()

    mobile.context.set_offline(False)

    mobile.wait_for_picture()
    jobs = mobile.server.http.get("/jobs?limit=2").json()["jobs"]
    assert jobs[0]["id"] == mobile.job_id  # and nothing else since
    assert [job["id"] for job in jobs[1:]] == [job["id"] for job in latest]


@pytest.mark.slow
def test_a_request_that_waits_survives_a_reload(mobile: Phone, photo: Path) -> None:
    mobile.pick_photo(photo)
    mobile.context.route("**/img2img", lambda route: route.abort())
    mobile.develop("a cat")
    mobile.page.get_by_text("Your request is sent as soon as it answers").wait_for()

    mobile.page.reload()
    mobile.context.unroute("**/img2img")

    mobile.wait_for_picture()
    assert mobile.job()["task"] == "img2img"


@pytest.mark.slow
def test_a_remix_brings_every_setting_back(mobile: Phone) -> None:
    asked = {
        "negative_prompt": "blurry",
        "num_inference_steps": 7,
        "guidance_scale": 4.5,
        "seed": 1234,
        "scheduler": "euler",
        "width": 96,
        "height": 128,
    }
    made = mobile.server.txt2img("a green frog", **asked).json()["images"][0]
    mobile.open(f"#/picture/{made['id']}")
    mobile.press("Remix")

    prompt = mobile.page.get_by_role("textbox", name="Prompt", exact=True)
    expect(prompt).to_have_value("a green frog")
    mobile.press("Develop")

    mobile.wait_for_picture()
    job = mobile.job()
    assert {name: job["request"][name] for name in asked} == asked
    remade = job["images"][0]
    assert _difference(mobile.stored(made["id"]), mobile.stored(remade["id"])).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "width", [320, *(pytest.param(wider, marks=pytest.mark.slow) for wider in (390, 768))]
)
def test_nothing_sticks_out_sideways(browser: Browser, server: RunningServer, width: int) -> None:
    screen = {"width": width, "height": 700}
    with phone(browser, server, screen=screen) as mobile:
        for place in ("", "#/gallery", "#/settings"):
            mobile.open(place)
            wide = mobile.page.evaluate(TOO_WIDE)
            assert wide == []


def _upload(data: bytes) -> dict[str, object]:
    return {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": data}


def _difference(one: Image.Image, other: Image.Image) -> np.ndarray:
    """By pixel and channel, from 0 to 255."""
    return np.abs(np.asarray(one, dtype=np.int16) - np.asarray(other, dtype=np.int16))


def _is_near(pixel: object, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.subtract(pixel, colour)).max() < 25)  # type: ignore[arg-type]
