"""Takes the pictures of docs/mobile.md: `python -m tests.browser.screenshots [SCREEN ...]`."""

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.phone import PHONE, TABLET, phone
from tests.browser.screens import SCREENS, develop_some
from tests.programs import program
from tests.serving import running

FOLDER = Path(__file__).parents[2] / "docs/mobile"
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"theme": "light", "screen": PHONE},
    "dark": {"theme": "dark", "screen": PHONE},
    "tablet": {"theme": "light", "screen": TABLET},
}
WIDTH = {"light": 390, "dark": 390, "tablet": 615}
COLOURS = 224
SETTLED_MS = 600


def take(names: list[str]) -> None:
    """Every named screen in every look."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=program("chromium"), args=["--no-sandbox"]
        )
        with running(Path(folder) / "data") as server:
            made = develop_some(server)
            for name in names:
                for look, options in LOOKS.items():
                    with phone(chromium, server, **options) as mobile:
                        SCREENS[name](mobile, made)
                        mobile.page.wait_for_timeout(SETTLED_MS)  # sheets have risen
                        _save(mobile.page.screenshot(), FOLDER / f"{name}-{look}.png", WIDTH[look])
        chromium.close()


def _save(data: bytes, path: Path, width: int) -> None:
    with Image.open(io.BytesIO(data)) as shot:
        size = (width, round(shot.height * width / shot.width))
        small = shot.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    few = small.quantize(COLOURS, Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


if __name__ == "__main__":
    take(sys.argv[1:] or list(SCREENS))
