"""A phone with the mobile client open: what a person sees and touches."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page

from tests.serving import RunningServer

Theme = Literal["light", "dark"]
Point = tuple[float, float]

PHONE = {"width": 390, "height": 780}
TABLET = {"width": 820, "height": 1180}
PICTURE = re.compile(r"^Picture \d+ of \d+: ")
# A developing picture takes seconds; the machine may be busy.
DEVELOPING_MS = 120_000

# What reaches beyond the right edge of the screen, and does not lie in a part that scrolls.
TOO_WIDE = """() => {
    const scrolls = e => e && (getComputedStyle(e).overflowX !== "visible"
        ? e !== document.body && e !== document.documentElement && !e.matches("#app, .screen")
        : scrolls(e.parentElement));
    return [...document.querySelectorAll("body *")]
        .filter(e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1)
        .filter(e => !scrolls(e.parentElement))
        .map(e => e.outerHTML.slice(0, 120));
}"""


class Phone:
    """A browser with fingers.

    Attributes:
        page: the client.
        server: which it is served by.
        errors: what its scripts complained about.
    """

    def __init__(self, context: BrowserContext, server: RunningServer) -> None:
        self.context = context
        self.server = server
        context.set_default_timeout(DEVELOPING_MS)
        self.page: Page = context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.protocol = context.new_cdp_session(self.page)

    # --- getting about ---

    def open(self, place: str = "") -> "Phone":
        """Load the client at a place such as `#/gallery`."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.server.url}/{place}")
        self.page.wait_for_selector(".tabs")
        return self

    def wait_for_models(self) -> None:
        """Until the form for a new picture knows the model, and so its shapes."""
        self.page.wait_for_selector(".shapes")

    def button(self, name: str, within: Locator | None = None) -> Locator:
        return (within or self.page).get_by_role("button", name=name, exact=True)

    def press(self, name: str) -> None:
        self.button(name).click()

    def tab(self, name: str) -> None:
        tabs = self.page.get_by_role("navigation", name="Sections")
        tabs.get_by_role("link", name=name).click()

    # --- creating ---

    def write(self, prompt: str) -> None:
        self.page.get_by_role("textbox", name="Prompt", exact=True).fill(prompt)

    def set_steps(self, steps: int) -> None:
        settings = self.page.locator("details.settings")
        if settings.get_attribute("open") is None:
            settings.locator("summary").click()
        settings.get_by_role("slider", name="Steps").fill(str(steps))

    def develop(self, prompt: str, *, steps: int | None = None) -> None:
        """Ask for a picture as a person does; it is being made when this returns."""
        self.write(prompt)
        if steps is not None:
            self.set_steps(steps)
        self.press("Develop")

    def pick_photo(self, photo: Path | dict[str, Any]) -> None:
        """Choose a photograph from the library, and use it as it is."""
        self.page.locator("[data-testid=library]").set_input_files(photo)  # type: ignore[arg-type]
        self.button("Use photo").click(timeout=DEVELOPING_MS)
        self.page.get_by_role("region", name="Start picture").wait_for()

    @property
    def picture(self) -> Locator:
        """The finished picture."""
        return self.page.get_by_role("img", name=PICTURE)

    def wait_for_picture(self) -> None:
        self.picture.wait_for(timeout=DEVELOPING_MS)
        self.page.wait_for_function(
            "picture => picture.complete && picture.naturalWidth > 0",
            arg=self.picture.element_handle(),
        )

    @property
    def job_id(self) -> str:
        """The job that is being looked at, once the server has it."""
        self.page.wait_for_url(re.compile(r"#/job/[0-9a-f]{24}$"), timeout=DEVELOPING_MS)
        return self.page.url.rsplit("/", 1)[1]

    def job(self) -> dict[str, Any]:
        job: dict[str, Any] = self.server.http.get(f"/jobs/{self.job_id}").json()
        return job

    # --- fingers ---

    def fingers(self, event: str, points: Sequence[Point]) -> None:
        touches = [{"x": x, "y": y, "id": index} for index, (x, y) in enumerate(points)]
        self.protocol.send("Input.dispatchTouchEvent", {"type": event, "touchPoints": touches})

    def drag(self, *way: Point, steps: int = 8) -> None:
        """One finger along a way of straight lines."""
        self.fingers("touchStart", [way[0]])
        for (x0, y0), (x1, y1) in pairwise(way):
            for step in range(1, steps + 1):
                part = step / steps
                self.fingers("touchMove", [(x0 + (x1 - x0) * part, y0 + (y1 - y0) * part)])
        self.fingers("touchEnd", [])

    def spread(self, middle: Point, start: float, end: float, steps: int = 8) -> None:
        """Two fingers from one distance apart to another. CSS pixels."""
        x, y = middle
        self.fingers("touchStart", [(x - start / 2, y)])
        for step in range(steps + 1):
            half = (start + (end - start) * step / steps) / 2
            event = "touchMove" if step else "touchStart"
            self.fingers(event, [(x - half, y), (x + half, y)])
        self.fingers("touchEnd", [])

    # --- what is there ---

    def stored(self, picture_id: str) -> Image.Image:
        """A picture's pixels, from the server."""
        answer = self.server.http.get(f"/images/{picture_id.removeprefix('image:')}")
        assert answer.status_code == 200, answer.text
        return Image.open(io.BytesIO(answer.content)).convert("RGB")


@contextmanager
def phone(
    browser: Browser,
    server: RunningServer,
    *,
    theme: Theme = "light",
    screen: dict[str, int] | None = None,
    **options: Any,
) -> Iterator[Phone]:
    """A phone of one's own: nothing kept, nothing shared with another."""
    context = browser.new_context(
        viewport=screen or PHONE,  # type: ignore[arg-type]
        device_scale_factor=2,
        has_touch=True,
        is_mobile=True,
        color_scheme=theme,
        locale="en-GB",
        **options,
    )
    try:
        yield Phone(context, server)
    finally:
        context.close()
