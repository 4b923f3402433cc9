"""Writes the client without `async` from the one with it: `python sdk/write_blocking.py`.

Both share all that decides (`darkroom_client/core`). What is left differs by a handful of words,
and is written once, in `darkroom_client/asynchronous`.
"""

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "darkroom_client"
SOURCE, TARGET = PACKAGE / "asynchronous", PACKAGE / "blocking"
BY_HAND = frozenset({"__init__.py", "aside.py", "display.py"})

# In order: what stands earlier is not seen by what stands later.
WORDS = (
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\b__a(enter|exit|iter)__", r"__\1__"),
    (r"\baclos(e|ing)\b", r"clos\1"),
    (r"\baiter_bytes\b", "iter_bytes"),
    (r"\basynchronous\b", "blocking"),
)


def blocking(source: str) -> str:
    """The same module without `async`, not yet formatted."""
    for word, replacement in WORDS:
        source = re.sub(word, replacement, source)
    return source


def write(target: Path) -> None:
    """Write all modules into a folder.

    Raises:
        subprocess.CalledProcessError: ruff, which formats them, does not understand them.
    """
    written = []
    for module in sorted(SOURCE.glob("*.py")):
        if module.name not in BY_HAND:
            written.append(target / module.name)
            written[-1].write_text(blocking(module.read_text()))
    config = ["--config", str(PACKAGE.parents[1] / "pyproject.toml")]
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--fix", "--unsafe-fixes", "--quiet"], ["format", "--quiet"]):
        subprocess.run([*ruff, *command, *config, *map(str, written)], check=True)


if __name__ == "__main__":
    write(TARGET)
