"""The pages, in a real browser without the internet."""

import subprocess
from pathlib import Path

import pytest

from tests.serving import RunningServer


def rendered(url: str, profile: Path) -> str:
    """The page's document once its scripts have run."""
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",  # tests may run as root
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=20000",
        "--dump-dom",
        url,
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return result.stdout


def test_the_docs_page_shows_every_route(server: RunningServer, tmp_path: Path) -> None:
    page = rendered(f"{server.url}/docs", tmp_path)

    assert "Unable to render" not in page
    for path in ("/txt2img", "/img2img", "/inpaint", "/jobs", "/models"):
        assert f'data-path="{path}"' in page


@pytest.mark.parametrize("link", ["/docs", "/models", "/schedulers", "/jobs", "/readyz"])
def test_the_first_page_leads_to_the_others(
    server: RunningServer, tmp_path: Path, link: str
) -> None:
    page = rendered(f"{server.url}/", tmp_path)

    assert f'href="{link}"' in page
    assert server.http.get(link).status_code == 200
