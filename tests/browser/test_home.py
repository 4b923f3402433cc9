"""The first page, on a phone: from the QR code to a paired device."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom.schemas import Scope
from tests.browser.driver import Page, browsing
from tests.security.doors import tokens_in
from tests.serving import RunningServer, running


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """It takes the browser for a stranger's."""
    folder = tmp_path_factory.mktemp("strict")
    with running(folder, process="web", DARKROOM_AUTH__TRUST_LOOPBACK="false") as started:
        yield started


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[Page]:
    with browsing(tmp_path / "profile") as page:
        yield page


def code_of(server: RunningServer) -> str:
    with tokens_in(server.data_dir) as tokens:
        return tokens.new_code(Scope.USE, 300)[0]


def shown(element: str) -> str:
    return f"document.getElementById('{element}')?.hidden === false"


def test_a_scanned_code_pairs_with_one_tap(
    strict_server: RunningServer, phone: Page, tmp_path: Path
) -> None:
    code = code_of(strict_server)
    phone.open(f"{strict_server.url}/#pair={code}")
    phone.wait_until(shown("stranger"))

    assert phone.evaluate("document.forms.pair.code.value") == code
    assert phone.evaluate("location.hash") == ""
    phone.evaluate("document.forms.pair.name.value = 'Ada\\'s phone'")
    phone.evaluate("document.querySelector('#pair button').click()")
    phone.wait_until(shown("friend"))
    assert phone.evaluate("document.getElementById('name').textContent") == "Ada's phone"
    assert "darkroom_token" not in phone.evaluate("document.cookie")
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth") is True
    phone.screenshot(tmp_path / "paired.png")

    phone.open(f"{strict_server.url}/")
    phone.wait_until(shown("friend"))
    assert phone.evaluate("fetch('/jobs').then((answer) => answer.status)") == 200
    phone.evaluate("document.getElementById('leave').click()")
    phone.wait_until(shown("stranger"))
    assert phone.evaluate("fetch('/jobs').then((answer) => answer.status)") == 401


def test_a_wrong_code_is_said(strict_server: RunningServer, phone: Page) -> None:
    phone.open(f"{strict_server.url}/#pair=AAAA-AAAA")
    phone.wait_until(shown("stranger"))
    phone.evaluate("document.forms.pair.name.value = 'phone'")
    phone.evaluate("document.querySelector('#pair button').click()")
    phone.wait_until("document.getElementById('trouble').textContent")

    assert "this code is wrong" in phone.evaluate("document.getElementById('trouble').textContent")


def test_pages_keep_to_their_policy(idle_server: RunningServer, phone: Page) -> None:
    phone.open(f"{idle_server.url}/")
    phone.wait_until(shown("friend"))
    phone.open(f"{idle_server.url}/docs")
    phone.wait_until("document.querySelector('.opblock-summary')")
    phone.evaluate("document.querySelector('.opblock-summary button').click()")
    phone.wait_until("document.querySelector('.opblock-body')")

    assert [text for text in phone.complaints if "Content Security Policy" in text] == []
