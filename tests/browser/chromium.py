"""Debian's Chromium, for pages that need no fingers."""

import subprocess
from pathlib import Path

from tests.programs import program


def document(url: str, profile: Path, *options: str) -> str:
    """The page's document once its scripts have run, in a browser without the internet.

    Args:
        url: of the page.
        profile: a folder for what the browser keeps.
        options: of the browser.
    """
    command = [
        program("chromium"),
        "--headless",
        "--no-sandbox",  # tests may run as root
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=120000",
        *options,
        "--dump-dom",
        url,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
