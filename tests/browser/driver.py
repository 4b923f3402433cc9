"""A browser that does what it is told, over the DevTools protocol on a pipe."""

import json
import os
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}


class Page:
    """One tab, the size of a phone.

    Attributes:
        complaints: what it wrote to the console as warnings and errors.
    """

    def __init__(self, commands: Any, answers: Any) -> None:
        self._commands = commands
        self._answers = answers
        self._count = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call("Emulation.setDeviceMetricsOverride", **PHONE)

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, awaited if it is a promise."""
        found = self._call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_until(self, condition: str) -> None:
        """Until an expression in the page is true."""
        self.evaluate(
            "new Promise((resolve) => { const look = () => "
            f"{{ if ({condition}) resolve(true); else setTimeout(look, 20); }}; look(); }})"
        )

    def screenshot(self, path: Path) -> None:
        path.write_bytes(b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        command: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            command["sessionId"] = self._session
        self._commands.write(json.dumps(command).encode() + b"\0")
        self._commands.flush()
        while True:
            message = self._read()
            if message.get("id") == self._count:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            if message.get("method") == "Log.entryAdded":
                entry = message["params"]["entry"]
                if entry["level"] in ("warning", "error"):
                    self.complaints.append(entry["text"])

    def _read(self) -> dict[str, Any]:
        raw = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "the browser is gone"
            raw += byte
        message: dict[str, Any] = json.loads(raw)
        return message


@contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """Open a browser, and close it at the end."""
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    command = (
        "exec chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-quic "
        "--disable-background-networking --disable-component-update --disable-sync "
        f'--remote-debugging-pipe --user-data-dir="$1" 3<&{commands_out} 4>&{answers_in}'
    )
    browser = subprocess.Popen(
        ["bash", "-c", command, "bash", str(profile)],
        pass_fds=(commands_out, answers_in),
        stderr=subprocess.DEVNULL,
    )
    os.close(commands_out)
    os.close(answers_in)
    with os.fdopen(commands_in, "wb") as commands, os.fdopen(answers_out, "rb") as answers:
        try:
            yield Page(commands, answers)
        finally:
            browser.terminate()
            browser.wait(30)
