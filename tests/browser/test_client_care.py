"""The mobile client loses nothing that somebody made, and shows nothing that is not so."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Locator, expect

from darkroom.images.decoder import load_readers
from tests.browser.phone import DEVELOPING_MS, Phone, phone
from tests.effort import sampled
from tests.serving import RunningServer


def paint(mobile: Phone, *, below: float = 0) -> None:
    """A stroke across the middle of the mask editor, or so many CSS pixels below it."""
    box = mobile.page.get_by_role("application", name="Picture to paint on").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 + below
    mobile.drag((x - 60, y), (x + 60, y))


def repaint(mobile: Phone) -> None:
    """The mask editor, opened on a picture from the gallery."""
    made = mobile.server.txt2img("a red fox").json()["images"][0]
    mobile.open(f"#/picture/{made['id']}")
    mobile.press("Edit")
    mobile.press("Repaint a part")


def start_picture(mobile: Phone) -> Locator:
    return mobile.page.get_by_role("region", name="Start picture")


def sent(mobile: Phone, field: str = "image") -> Image.Image:
    """The picture that the job on screen was sent with."""
    mobile.wait_for_picture()
    return mobile.stored(mobile.job()["request"][field])


# --- pictures of a job ---


@pytest.mark.slow
def test_each_picture_is_replayed_as_itself(mobile: Phone) -> None:
    job = mobile.server.txt2img("a red fox", num_images=3, num_inference_steps=8).json()
    previews = [
        event["data"] for event in mobile.server.events(job["id"]) if event["event"] == "preview"
    ]
    mobile.open(f"#/job/{job['id']}")
    mobile.wait_for_picture()

    for index in range(3):
        mobile.press(f"Show picture {index + 1}")
        expect(mobile.picture).to_have_attribute("src", f"/images/{job['id']}-{index}")
        mobile.press("Replay")
        finished, frame = (mobile.page.locator(".timeline-picture img").nth(at) for at in (0, 1))
        expect(finished).to_have_attribute("src", f"/images/{job['id']}-{index}")
        mobile.page.get_by_role("slider", name="Replay").fill("0")
        first = next(preview for preview in previews if preview["index"] == index)
        expect(frame).to_have_attribute("src", first["image"])
        expect(mobile.page.locator(".timeline-label")).to_have_text(f"Step {first['step']} of 8")

    mobile.press("Back to the picture")
    mobile.page.touchscreen.tap(*_middle(mobile.picture))
    viewer = mobile.page.get_by_role("dialog", name="Picture")
    viewer.get_by_role("button", name="Replay").click()
    mobile.page.get_by_role("slider", name="Replay").fill("0")
    expect(viewer.locator(".timeline-picture img").nth(1)).to_have_attribute("src", first["image"])


def test_a_finished_picture_opens_full_screen_and_leads_back(mobile: Phone) -> None:
    job = mobile.server.txt2img("a red fox", num_images=2).json()
    mobile.open(f"#/job/{job['id']}")
    mobile.press("Show picture 2")

    mobile.page.touchscreen.tap(*_middle(mobile.picture))

    viewer = mobile.page.get_by_role("dialog", name="Picture")
    expect(viewer.get_by_role("img", name="a red fox")).to_have_attribute(
        "src", f"/images/{job['id']}-1"
    )
    viewer.press("ArrowLeft")
    expect(viewer.get_by_role("img", name="a red fox")).to_have_attribute(
        "src", f"/images/{job['id']}-0"
    )
    mobile.page.go_back()
    expect(mobile.button("Show picture 2")).to_have_attribute("aria-pressed", "true")


@pytest.mark.slow
def test_a_result_is_compared_with_its_start_picture(mobile: Phone) -> None:
    start = mobile.server.txt2img("a red fox").json()["images"][0]["id"]
    body = {"prompt": "a blue fox", "image": f"image:{start}", "num_inference_steps": 2}
    job = mobile.server.http.post("/img2img", json=body).json()
    mobile.open(f"#/job/{job['id']}")

    mobile.press("Compare")

    expect(mobile.page.get_by_role("slider", name="Line between before")).to_be_visible()
    expect(mobile.page.get_by_role("img", name="Before")).to_have_attribute(
        "src", f"/images/{start}"
    )


@pytest.mark.slow
def test_a_picture_is_made_larger_from_the_result_and_from_the_viewer(mobile: Phone) -> None:
    made = mobile.server.txt2img("a red fox", num_inference_steps=4).json()
    mobile.open(f"#/job/{made['id']}")

    mobile.press("Upscale")
    mobile.press("×2: 256 × 256 pixels")
    mobile.wait_for_picture()

    job = mobile.job()
    assert (job["task"], job["request"]["image"]) == ("upscale", f"image:{made['images'][0]['id']}")
    assert (job["images"][0]["width"], job["images"][0]["height"]) == (256, 256)
    expect(mobile.page.get_by_role("heading", name="Upscaled ×2")).to_be_visible()
    # There is nothing else to be had from this request.
    for name in ("Develop again", "Remix", "Replay"):
        expect(mobile.button(name)).to_have_count(0)
    mobile.press("Compare")
    expect(mobile.page.get_by_role("img", name="Before")).to_have_attribute(
        "src", f"/images/{made['images'][0]['id']}"
    )

    mobile.open(f"#/picture/{job['images'][0]['id']}")
    mobile.press("Upscale")
    mobile.press("×4: 1024 × 1024 pixels")
    mobile.wait_for_picture()
    mobile.tab("Gallery")

    tiles = mobile.page.locator(".tile")
    expect(tiles.first).to_have_accessible_name("Upscaled ×4")
    expect(tiles.nth(1)).to_have_accessible_name("Upscaled ×2")


def test_nothing_is_made_larger_where_no_upscaler_can(mobile: Phone) -> None:
    folder = mobile.server.data_dir / "upscalers"
    folder.mkdir()
    for scale in (2, 4):  # they replace those of the package, and cannot be used
        (folder / f"tintype-x{scale}.safetensors").write_bytes(b"<!doctype html>")
    try:
        made = mobile.server.txt2img("a red fox", num_inference_steps=2).json()
        mobile.open(f"#/picture/{made['images'][0]['id']}")

        expect(mobile.button("Edit")).to_be_visible()
        expect(mobile.button("Upscale")).to_have_count(0)
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_developing_again_leaves_a_way_back_to_the_picture(mobile: Phone) -> None:
    mobile.develop("a red fox", steps=2)
    mobile.wait_for_picture()
    first = mobile.page.url

    mobile.press("Develop again")
    mobile.page.wait_for_url(lambda url: url != first)
    mobile.wait_for_picture()
    mobile.press("Back")

    mobile.page.wait_for_url(first)


# --- masks and photos ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", ["the back gesture", pytest.param("the cross", marks=pytest.mark.slow)]
)
def test_strokes_are_kept_when_the_editor_is_left(mobile: Phone, way: str) -> None:
    repaint(mobile)
    paint(mobile)

    mobile.page.go_back() if way == "the back gesture" else mobile.press("Cancel")

    expect(mobile.page.get_by_text("Your strokes are kept")).to_be_visible()
    mobile.page.reload()
    mobile.press("Continue the mask")
    expect(mobile.button("Done")).to_be_enabled()
    mobile.press("Undo")
    expect(mobile.button("Done")).to_be_disabled()


@pytest.mark.slow
def test_a_removed_start_picture_comes_back_with_its_mask(mobile: Phone) -> None:
    repaint(mobile)
    paint(mobile)
    mobile.press("Done")
    mobile.press("Remove the start picture")
    expect(start_picture(mobile)).to_have_count(0)

    mobile.press("Undo")

    expect(mobile.button("Change mask")).to_be_visible()
    mobile.press("Remove mask")
    expect(mobile.button("Change mask")).to_have_count(0)
    mobile.press("Undo")
    expect(mobile.button("Change mask")).to_be_visible()


@pytest.mark.slow
def test_the_mask_of_a_remix_is_changed_and_not_begun_anew(mobile: Phone) -> None:
    job = _inpaint(mobile)
    old = np.asarray(mobile.stored(job["request"]["mask_image"]).convert("L")) > 127
    mobile.open(f"#/picture/{job['images'][0]['id']}")
    mobile.press("Remix")
    mobile.press("Change mask")
    expect(mobile.button("Done")).to_be_enabled()

    paint(mobile, below=100)
    mobile.press("Done")
    mobile.press("Develop")

    new = np.asarray(sent(mobile, "mask_image").convert("L")) > 127
    assert (new | old).sum() == new.sum(), "a part of the old mask is gone"
    assert new.sum() > old.sum() * 1.1


@pytest.mark.slow
def test_a_crop_is_made_wider_again_from_the_photo(mobile: Phone, photo: Path) -> None:
    mobile.page.get_by_test_id("library").set_input_files(photo)
    mobile.press("1:1")
    mobile.press("Use photo")
    mobile.press("Crop")
    expect(mobile.button("1:1")).to_have_attribute("aria-pressed", "true")

    mobile.press("Original")
    mobile.press("Use photo")
    mobile.develop("a cat", steps=2)

    wide = sent(mobile)
    assert wide.width / wide.height == pytest.approx(451 / 300, rel=0.06)
    with Image.open(photo) as original:
        expected = original.convert("RGB").resize(wide.size)
    assert _difference(wide, expected) < 12


@pytest.mark.slow
def test_of_a_panorama_one_chooses_a_part_in_its_proportions(mobile: Phone) -> None:
    panorama = Image.new("RGB", (1800, 200), "white")
    ImageDraw.Draw(panorama).ellipse((860, 60, 940, 140), fill="black")  # in the middle
    mobile.page.get_by_test_id("library").set_input_files(_file(panorama))

    expect(mobile.page.get_by_text("Too long for the model")).to_be_visible()
    mobile.press("Use photo")
    mobile.develop("a moon", steps=2)

    picture = sent(mobile).convert("L")
    rows, columns = np.nonzero(np.asarray(picture) < 128)
    assert np.ptp(columns) == pytest.approx(np.ptp(rows), abs=2), "a circle is a circle"


@pytest.mark.slow
def test_an_icon_is_enlarged_in_its_proportions(mobile: Phone) -> None:
    mobile.page.get_by_test_id("library").set_input_files(_file(Image.new("RGB", (40, 28), "red")))

    expect(mobile.page.get_by_text("it is enlarged")).to_be_visible()
    mobile.press("Use photo")
    mobile.develop("a flag", steps=2)

    icon = sent(mobile)
    assert icon.width / icon.height == pytest.approx(40 / 28, rel=0.08)


# --- settings ---


@pytest.mark.slow
def test_a_remixed_seed_is_shown_and_used_once(mobile: Phone) -> None:
    made = mobile.server.txt2img("a green frog", seed=1234).json()["images"][0]
    mobile.open(f"#/picture/{made['id']}")
    mobile.press("Remix")
    lock = mobile.page.get_by_role("region", name="Seed")
    expect(lock).to_contain_text("Seed 1234")
    expect(lock).to_contain_text("For the next request only")

    mobile.press("Develop")
    mobile.wait_for_picture()
    assert mobile.job()["request"]["seed"] == 1234
    mobile.tab("Create")
    expect(lock).to_have_count(0)
    mobile.develop("a sunflower")

    mobile.wait_for_picture()
    assert mobile.job()["images"][0]["seed"] != 1234


@pytest.mark.slow
def test_a_remix_can_be_undone(mobile: Phone) -> None:
    made = mobile.server.txt2img("a green frog").json()["images"][0]
    mobile.write("a half-written idea")
    mobile.page.evaluate("id => { location.hash = `#/picture/${id}` }", made["id"])
    mobile.press("Remix")
    prompt = mobile.page.get_by_role("textbox", name="Prompt", exact=True)
    expect(prompt).to_have_value("a green frog")

    mobile.press("Undo")

    expect(prompt).to_have_value("a half-written idea")
    expect(mobile.page.get_by_role("region", name="Seed")).to_have_count(0)


def _inpaint(mobile: Phone) -> dict[str, Any]:
    start = mobile.server.txt2img("a red fox").json()["images"][0]
    mask = Image.new("L", (start["width"], start["height"]), 0)
    ImageDraw.Draw(mask).rectangle((40, 20, 80, 40), fill=255)
    answer = mobile.server.http.post(
        "/inpaint",
        data={
            "prompt": "a hat",
            "image": f"image:{start['id']}",
            "num_inference_steps": "2",
            "seed": "7",
        },
        files={"mask_image": ("mask.png", _file(mask)["buffer"], "image/png")},
    )
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


def _file(picture: Image.Image) -> dict[str, Any]:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return {"name": "picture.png", "mimeType": "image/png", "buffer": data.getvalue()}


def _middle(element: Locator) -> tuple[float, float]:
    element.wait_for(timeout=DEVELOPING_MS)
    box = element.bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def _difference(one: Image.Image, other: Image.Image) -> float:
    """The mean over pixels and channels, from 0 to 255."""
    pixels = np.asarray(one, np.float32) - np.asarray(other, np.float32)
    return float(np.abs(pixels).mean())


# --- photos that this browser cannot show ---


def heic(size: tuple[int, int] = (640, 480)) -> bytes:
    """A photo as iPhones and Samsung's phones store it: left half red, right half blue."""
    load_readers()
    photo = Image.new("RGB", size, "blue")
    photo.paste("red", (0, 0, size[0] // 2, size[1]))
    buffer = io.BytesIO()
    photo.save(buffer, "HEIF")
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("kind", sampled(["", "image/heic"]))
def test_a_heic_photo_is_opened_by_the_server(mobile: Phone, kind: str) -> None:
    mobile.pick_photo({"name": "IMG_0001.HEIC", "mimeType": kind, "buffer": heic()})

    mobile.write("a red fox")
    mobile.press("Develop")

    used = sent(mobile)
    assert used.width > used.height
    red, _, blue = used.getpixel((used.width // 8, used.height // 2))
    assert red > 200 > 60 > blue

    mobile.tab("Create")
    start_picture(mobile).get_by_role("button", name="Crop").click()
    expect(mobile.button("Use photo")).to_be_enabled()  # from what the server made of it


def test_what_is_no_photo_is_told_in_the_servers_words(mobile: Phone) -> None:
    text = {"name": "notes.heic", "mimeType": "image/heic", "buffer": b"Dear diary"}
    mobile.page.locator("[data-testid=library]").set_input_files(text)  # type: ignore[arg-type]

    alert = mobile.page.get_by_role("alert")
    expect(alert).to_contain_text("This file cannot be opened as a picture")
    expect(alert).to_contain_text("these bytes are not a picture in a format we read")


def test_a_heic_photo_without_a_server_says_how_to_make_it_a_jpeg(mobile: Phone) -> None:
    mobile.wait_for_models()
    mobile.context.set_offline(True)
    photo = {"name": "IMG_0001.HEIC", "mimeType": "image/heic", "buffer": heic()}
    mobile.page.locator("[data-testid=library]").set_input_files(photo)  # type: ignore[arg-type]

    expect(mobile.page.get_by_role("alert")).to_contain_text("“most compatible”")
    mobile.context.set_offline(False)


# --- what the server says ---


@pytest.mark.slow
def test_the_servers_words_come_in_the_users_language(
    browser: Browser, server: RunningServer
) -> None:
    with phone(browser, server) as opened:
        opened.context.add_init_script("""localStorage.setItem("darkroom.language", '"vi"')""")
        unknown = server.txt2img("qwrtzp", num_inference_steps=1).json()
        opened.open()
        expect(opened.page.get_by_text("Mô hình thử: vẽ được")).to_be_visible()
        opened.open(f"#/job/{unknown['id']}")
        expect(opened.page.locator(".notes")).to_contain_text("mô hình thử này không biết từ nào")

        gone = server.txt2img("a red fox", num_inference_steps=1).json()["images"][0]
        opened.open(f"#/picture/{gone['id']}")
        opened.press("Sửa")
        opened.press("Tạo ảnh mới từ ảnh này")
        opened.page.locator("textarea").first.fill("a fox")
        server.http.delete(gone["url"])
        opened.press("Tráng ảnh")

        refused = opened.page.get_by_role("alert")
        expect(refused).to_contain_text("Máy chủ không làm được với thiết lập này")
        expect(refused).to_contain_text("không còn ảnh này")
        expect(refused).not_to_contain_text("there is no picture")

        failed = server.submit(prompt="a (fox:9)", num_inference_steps=1)
        server.finished(failed["id"])
        opened.open(f"#/job/{failed['id']}")
        why = opened.page.locator(".failed")
        expect(why).to_contain_text("Máy chủ không tạo được ảnh với thiết lập này")
        expect(why).to_contain_text("trọng số của “fox” là 9, phải từ 0 đến 5")
        expect(why).to_contain_text(r"hãy viết \( và \)")
        expect(why).not_to_contain_text("the weight of")
