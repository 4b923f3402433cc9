"""The pages, in a real browser without the internet."""

from pathlib import Path

import pytest

from tests.browser.chromium import document
from tests.serving import RunningServer

pytestmark = pytest.mark.slow


def test_the_docs_page_shows_every_route(server: RunningServer, tmp_path: Path) -> None:
    page = document(f"{server.url}/docs", tmp_path)

    assert "Unable to render" not in page
    for path in ("/txt2img", "/img2img", "/inpaint", "/jobs", "/models"):
        assert f'data-path="{path}"' in page
