"""A notebook without a browser: a real kernel, and all that it sends to be shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

TIMEOUT_S = 120


class Recorder(NotebookClient):
    """Keeps every drawing, for an output keeps only the last."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.drawn: list[dict[str, Any]] = []

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in ("display_data", "update_display_data"):
            self.drawn.append(msg["content"])
        return super().process_message(msg, cell, cell_index)


@dataclass(frozen=True)
class Ran:
    """A cell after it ran.

    Attributes:
        drawn: every state of its displays, as HTML, in order.
        displays: how many displays those are of.
        outputs: what stands below it in the end, by media type; streams are `text/plain`.
    """

    drawn: list[str]
    displays: int
    outputs: list[dict[str, Any]]


class Notebook:
    """Runs cells in one kernel."""

    def __init__(self, client: Recorder) -> None:
        self._client = client

    def run(self, code: str) -> Ran:
        """Run a cell.

        Raises:
            nbclient.exceptions.CellExecutionError: it raised.
        """
        self._client.drawn.clear()
        cells = self._client.nb.cells
        cells.append(nbformat.v4.new_code_cell(code))
        ran = self._client.execute_cell(cells[-1], len(cells) - 1)
        drawn = [content for content in self._client.drawn if "text/html" in content["data"]]
        return Ran(
            [content["data"]["text/html"] for content in drawn],
            len({content["transient"]["display_id"] for content in drawn}),
            [output.get("data", {"text/plain": output.get("text")}) for output in ran.outputs],
        )


@contextmanager
def kernel(folder: Path, **environment: str) -> Iterator[Notebook]:
    """A fresh kernel that leaves this user's own settings alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
            patch.setenv(name, str(folder))
        for name, value in environment.items():
            patch.setenv(name, value)
        client = Recorder(nbformat.v4.new_notebook(), timeout=TIMEOUT_S, kernel_name="python3")
        with client.setup_kernel():
            yield Notebook(client)
