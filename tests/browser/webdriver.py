"""Firefox and WebKit, driven by mouse and keys with the commands of W3C's WebDriver.

Playwright drives its own builds of them, which Debian does not have. Over BiDi it asks for
`emulation.setMediaFeaturesOverride`, which Firefox 153 does not know, before it opens a page. So
Firefox gets the commands over its own socket (Marionette), where geckodriver sends them, too, and
WebKitGTK gets them over HTTP, from WebKitWebDriver. None of them makes a page dark, or takes its
network away.
"""

import json
import os
import re
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.programs import program
from tests.serving import free_port
from tests.waiting import PATIENCE_S, eventually

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id (W3C WebDriver, 12.1)
KEYS = {"ArrowUp": "\ue013", "ArrowLeft": "\ue012", "ArrowRight": "\ue014", "ArrowDown": "\ue015"}
KEYS |= {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004"}
# What can have the role; what an element's role is decides the browser.
CANDIDATES = {
    "application": "[role=application]",
    "button": "button",
    "heading": "h1, h2, h3",
    "img": "img",
    "radio": "input[type=radio]",
    "slider": "input[type=range]",
    "status": "[role=status]",
}


@dataclass(frozen=True)
class Command:
    """A command by its name in Marionette, and by its method and path in W3C's WebDriver."""

    name: str
    method: str
    path: str


NAVIGATE = Command("Navigate", "POST", "/url")
EXECUTE = Command("ExecuteScript", "POST", "/execute/sync")
RESIZE = Command("SetWindowRect", "POST", "/window/rect")
CLICK = Command("ElementClick", "POST", "/element/{id}/click")
SEND_KEYS = Command("ElementSendKeys", "POST", "/element/{id}/value")
LABEL = Command("GetComputedLabel", "GET", "/element/{id}/computedlabel")
ROLE = Command("GetComputedRole", "GET", "/element/{id}/computedrole")


class WebDriver(ABC):
    """One window of a browser. Elements are found as a screen reader finds them."""

    @abstractmethod
    def command(self, command: Command, **arguments: Any) -> Any:
        """The value that the browser answers with."""

    def resize(self, width: int, height: int) -> None:
        """Make the window so large, as far as the browser lets it be. CSS pixels."""
        self.command(RESIZE, width=width, height=height)

    def goto(self, url: str) -> None:
        self.command(NAVIGATE, url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a function's body returns."""
        return self.command(EXECUTE, script=script, args=list(arguments))

    def find(self, role: str, name: str | re.Pattern[str] = "") -> str:
        """The id of the shown element with this role and name, once there is one."""
        return eventually(lambda: self._look_for(role, name), about=self._page)

    def click(self, role: str, name: str | re.Pattern[str]) -> None:
        def act(element: str) -> None:
            self.run("arguments[0].scrollIntoView({ block: 'center' })", {ELEMENT: element})
            self.command(CLICK, id=element)

        self._with(role, name, act)

    def press(self, role: str, name: str | re.Pattern[str], key: str) -> None:
        """A key while the element has the focus."""

        def act(element: str) -> None:
            self.run("arguments[0].focus()", {ELEMENT: element})
            self.command(SEND_KEYS, id=element, text=KEYS[key])

        self._with(role, name, act)

    def text(self, role: str, name: str | re.Pattern[str] = "") -> str:
        return self._read_of(role, name, "return arguments[0].innerText")

    def value_text(self, role: str, name: str) -> str:
        """What a slider is read out as."""
        return self._read_of(role, name, "return arguments[0].getAttribute('aria-valuetext')")

    def _read_of(self, role: str, name: str | re.Pattern[str], script: str) -> str:
        found: str = self._with(role, name, lambda element: self.run(script, {ELEMENT: element}))
        return found

    def _with(self, role: str, name: str | re.Pattern[str], act: Callable[[str], Any]) -> Any:
        """What `act` returns for the element; the page may draw another in its place meanwhile."""
        while True:
            with suppress(StaleElementError):
                return act(self.find(role, name))

    def _look_for(self, role: str, name: str | re.Pattern[str]) -> str:
        """The element's id; empty while there is none."""
        found: list[dict[str, str]] = []
        with suppress(StaleElementError):
            found = self.run(
                "return [...document.querySelectorAll(arguments[0])]"
                ".filter(e => e.getClientRects().length > 0 && !e.closest('[inert]'))",
                CANDIDATES[role],
            )
        for each in found:
            element = each[ELEMENT]
            with suppress(StaleElementError):
                label = self.command(LABEL, id=element)
                is_it = name.search(label) if isinstance(name, re.Pattern) else name in ("", label)
                if is_it:
                    said = self.command(ROLE, id=element)
                    assert said.replace("image", "img") == role, f"{label} is a {said}"
                    return element
        return ""

    def _page(self) -> str:
        shown: str = self.run("return document.body.innerText")
        return shown


class WebDriverError(Exception):
    """The browser refused a command."""


class StaleElementError(WebDriverError):
    """The page has drawn another element in the place of the one that was found; nothing is done.

    A browser says so also of a script that returns elements which go in that moment.
    """


def refusal(error: dict[str, Any]) -> WebDriverError:
    """The exception of an error in WebDriver's form (https://www.w3.org/TR/webdriver2/#errors)."""
    stale = error["error"] in ("stale element reference", "no such element")
    kind = StaleElementError if stale else WebDriverError
    return kind(f"{error['error']}: {error['message']}")


class Firefox(WebDriver):
    """Over Marionette: a message is its length, a colon, and JSON."""

    def __init__(self, port: int) -> None:
        eventually(lambda: self._connect(port))
        self._file = self._socket.makefile("rwb")
        self._read()  # it says hello
        self._count = 0
        self._send("WebDriver:NewSession", {"pageLoadStrategy": "normal"})

    def command(self, command: Command, **arguments: Any) -> Any:
        answer = self._send(f"WebDriver:{command.name}", arguments)
        return answer.get("value", answer) if isinstance(answer, dict) else answer

    def _connect(self, port: int) -> bool:
        with suppress(OSError):
            self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
            return True
        return False

    def close(self) -> None:
        with suppress(OSError, ValueError):
            self._send("Marionette:Quit", {"flags": ["eForceQuit"]})
        self._socket.close()

    def _send(self, name: str, arguments: dict[str, Any]) -> Any:
        self._count += 1
        data = json.dumps([0, self._count, name, arguments]).encode()
        self._file.write(str(len(data)).encode() + b":" + data)
        self._file.flush()
        _, _, error, value = self._read()
        if error is not None:
            raise refusal(error)
        return value

    def _read(self) -> Any:
        length = b""
        while (letter := self._file.read(1)) != b":":
            if not letter:
                raise WebDriverError("Firefox has ended")
            length += letter
        return json.loads(self._file.read(int(length)))


class WebKit(WebDriver):
    """Over HTTP, as every other browser takes it."""

    def __init__(self, port: int) -> None:
        self._http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S)
        eventually(self._is_there)
        answer = self._http.post("/session", json={"capabilities": {}})
        self._session = _value(answer)["sessionId"]

    def command(self, command: Command, **arguments: Any) -> Any:
        path = f"/session/{self._session}{command.path.format_map(arguments)}"
        body = arguments if command.method == "POST" else None
        return _value(self._http.request(command.method, path, json=body))

    def close(self) -> None:
        with suppress(httpx2.TransportError):
            self._http.delete(f"/session/{self._session}")
        self._http.close()

    def _is_there(self) -> bool:
        with suppress(httpx2.TransportError):
            return self._http.get("/status").status_code == 200
        return False


@contextmanager
def firefox(folder: Path) -> Iterator[Firefox]:
    """Debian's Firefox without a screen, with a profile of its own."""
    port = free_port()
    profile = folder / "profile"
    profile.mkdir()
    settings = {
        "marionette.port": port,
        "app.update.auto": False,
        "browser.shell.checkDefaultBrowser": False,
        "datareporting.policy.dataSubmissionEnabled": False,
        "network.captive-portal-service.enabled": False,
        "network.connectivity-service.enabled": False,
        "intl.accept_languages": "en-GB",
    }
    lines = (
        f"user_pref({json.dumps(key)}, {json.dumps(value)});" for key, value in settings.items()
    )
    (profile / "user.js").write_text("\n".join(lines))
    command = [program("firefox-esr"), "--headless", "--marionette", "--no-remote"]
    with _running([*command, "--profile", str(profile)], folder, {}), ExitStack() as ends:
        opened = Firefox(port)
        ends.callback(opened.close)
        yield opened


@contextmanager
def webkit(folder: Path) -> Iterator[WebKit]:
    """WebKitGTK's MiniBrowser on a screen that nobody sees."""
    port = free_port()
    driver = [program("WebKitWebDriver"), f"--port={port}"]
    with _screen(folder) as display:
        # It keeps what pages store where the user's programs do.
        own = {name: str(folder) for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
        own |= {"DISPLAY": display, "GDK_BACKEND": "x11", "LANGUAGE": "en_GB"}
        with _running(driver, folder, own), ExitStack() as ends:
            opened = WebKit(port)
            ends.callback(opened.close)
            yield opened


@contextmanager
def _screen(folder: Path) -> Iterator[str]:
    """The name of an X display. Xvfb chooses a free one and writes its number."""
    read, write = os.pipe()
    command = [program("Xvfb"), "-displayfd", str(write), "-screen", "0", "1400x1000x24"]
    with _running([*command, "-nolisten", "tcp"], folder, {}, fds=(write,)):
        os.close(write)
        with os.fdopen(read) as number:
            yield f":{number.readline().strip()}"


@contextmanager
def _running(
    command: list[str], folder: Path, environment: dict[str, str], fds: tuple[int, ...] = ()
) -> Iterator[None]:
    """A program that ends with the context; what it says is in a log beside its data."""
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=said,
            env={**os.environ, **environment},
            pass_fds=fds,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def _value(answer: httpx2.Response) -> Any:
    value = answer.json()["value"]
    if answer.status_code != 200:
        raise refusal(value)
    return value
