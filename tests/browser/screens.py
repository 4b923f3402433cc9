"""Every screen of the mobile client, and how a person gets there."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.browser.phone import DEVELOPING_MS, Phone
from tests.serving import RunningServer

PHOTO = Path(__file__).parents[1] / "data/photo.jpg"
PROMPTS = [
    "a red fox",
    "a green frog",
    "a yellow star",
    "a blue whale",
    "a strawberry",
    "a rocket in space",
    "a sunflower",
    "a happy cat",
    "an owl at night",
]

DEVICES = ["Ada’s phone", "The kitchen’s tablet"]


@dataclass(frozen=True)
class Made:
    """What was developed for the screens to show.

    Attributes:
        picture: from words.
        remade: from `picture`.
    """

    picture: str
    remade: str


def develop_some(server: RunningServer) -> Made:
    """Fill the gallery a little, and let two devices in."""
    for device in DEVICES:
        server.http.post("/tokens", json={"name": device}).raise_for_status()
    made = [_develop(server, "txt2img", prompt=prompt) for prompt in PROMPTS]
    source = f"image:{made[0]}"
    remade = _develop(server, "img2img", prompt="a blue fox", image=source, strength=0.8)
    return Made(made[0], remade)


def _develop(server: RunningServer, task: str, **fields: Any) -> str:
    answer = server.http.post(f"/{task}", json={"seed": 7, **fields})
    assert answer.status_code == 200, answer.text
    picture: str = answer.json()["images"][0]["id"]
    return picture


def create(mobile: Phone, _: Made) -> None:
    mobile.open()
    mobile.write("a red fox in the snow")
    mobile.page.locator(".shapes").wait_for()


def advanced(mobile: Phone, made: Made) -> None:
    create(mobile, made)
    mobile.set_steps(24)


def photo(mobile: Phone, _: Made) -> None:
    mobile.open().page.locator("[data-testid=library]").set_input_files(PHOTO)
    mobile.button("Use photo").wait_for(timeout=DEVELOPING_MS)
    mobile.press("1:1")


def img2img(mobile: Phone, made: Made) -> None:
    photo(mobile, made)
    mobile.press("Use photo")
    mobile.write("a tiger")
    mobile.page.get_by_role("slider", name="Strength").wait_for()


def mask(mobile: Phone, made: Made) -> None:
    viewer(mobile, made)
    mobile.press("Edit")
    mobile.press("Repaint a part")
    sheet = mobile.page.get_by_role("application", name="Picture to paint on")
    box = sheet.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mobile.drag((x - 70, y - 30), (x + 70, y - 40), (x + 60, y + 10), (x - 60, y + 20))


def inpaint(mobile: Phone, made: Made) -> None:
    mask(mobile, made)
    mobile.press("Done")
    mobile.write("a fox with sunglasses")


def developing(mobile: Phone, _: Made) -> None:
    mobile.open().develop("a red fox", steps=60)
    mobile.page.get_by_role("img", name="Preview of: a red fox").wait_for(timeout=DEVELOPING_MS)


def developed(mobile: Phone, made: Made) -> None:
    mobile.open(f"#/job/{made.picture.rsplit('-', 1)[0]}")
    mobile.wait_for_picture()


def replay(mobile: Phone, made: Made) -> None:
    developed(mobile, made)
    mobile.press("Replay")
    mobile.page.get_by_role("slider", name="Replay").fill("0")


def gallery(mobile: Phone, _: Made) -> None:
    mobile.open("#/gallery").page.locator(".tile").first.wait_for()


def selecting(mobile: Phone, made: Made) -> None:
    gallery(mobile, made)
    mobile.press("Select")
    for index in (1, 2, 4):
        mobile.page.locator(".tile").nth(index).click()


def viewer(mobile: Phone, made: Made) -> None:
    mobile.open(f"#/picture/{made.picture}")
    mobile.button("Edit").wait_for()


def compare(mobile: Phone, made: Made) -> None:
    mobile.open(f"#/picture/{made.remade}")
    mobile.press("Compare")
    mobile.page.get_by_role("slider", name="Line between before and after").wait_for()


def viewer_replay(mobile: Phone, made: Made) -> None:
    viewer(mobile, made)
    mobile.press("Replay")
    mobile.page.get_by_role("slider", name="Replay").fill("0")


def inside(mobile: Phone, made: Made) -> None:
    mobile.open(f"#/inside/{made.picture}")
    again = mobile.button("Make it again")
    again.or_(mobile.button("fox")).wait_for()
    if again.is_visible():
        again.click()
    mobile.press("fox")


def inside_steps(mobile: Phone, made: Made) -> None:
    inside(mobile, made)
    mobile.page.get_by_role("application").click(position={"x": 60, "y": 60})
    mobile.page.get_by_role("slider", name="Steps").fill("3")
    mobile.page.locator(".inside").evaluate("e => e.scrollTo(0, e.scrollHeight)")


def details(mobile: Phone, made: Made) -> None:
    viewer(mobile, made)
    mobile.press("Details")
    mobile.page.get_by_role("dialog", name="Details").wait_for()


def edit(mobile: Phone, made: Made) -> None:
    viewer(mobile, made)
    mobile.press("Edit")
    mobile.page.get_by_role("dialog", name="Edit this picture").wait_for()


def upscale(mobile: Phone, made: Made) -> None:
    developed(mobile, made)
    mobile.press("Upscale")
    mobile.page.get_by_role("dialog", name="Make this picture larger").wait_for()


def settings(mobile: Phone, _: Made) -> None:
    mobile.open("#/settings").page.get_by_role("heading", name="This server").wait_for()


def device(mobile: Phone, made: Made) -> None:
    settings(mobile, made)
    mobile.page.get_by_role("button", name=re.compile(DEVICES[0])).click()
    mobile.page.get_by_role("dialog", name=DEVICES[0]).wait_for()


def pair(mobile: Phone, _: Made) -> None:
    mobile.open("#/pair").page.get_by_role("textbox", name="Pairing code").wait_for()


SCREENS: dict[str, Callable[[Phone, Made], None]] = {
    "create": create,
    "create-advanced": advanced,
    "photo": photo,
    "img2img": img2img,
    "mask": mask,
    "inpaint": inpaint,
    "developing": developing,
    "developed": developed,
    "replay": replay,
    "gallery": gallery,
    "selecting": selecting,
    "viewer": viewer,
    "compare": compare,
    "viewer-replay": viewer_replay,
    "inside": inside,
    "inside-steps": inside_steps,
    "details": details,
    "edit": edit,
    "upscale": upscale,
    "settings": settings,
    "device": device,
    "pair": pair,
}
