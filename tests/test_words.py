"""Names that once stood for something in this code alone; standard terms have replaced them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORMER = re.compile(
    r"\b([Hh]eralds?|[Oo]utlooks?|[Rr]otas?|[Cc]ensus|[Rr]ehears(al|als|e|ed)|[Ss]ociable|[Aa]natomy"
    r"|[Kk]nocks?|[Gg]reetings?|[Jj]ournals?|Letters?|Telling|Standing|Flights?|Manner|Intake|Shelf"
    r"|Words|Tower)\b"
)
SUFFIXES = {".py", ".md", ".yaml", ".toml", ".html"}


@pytest.mark.parametrize("place", ["server", "sdk", "docs", "README.md", "config.yaml"])
def test_no_former_name_is_used(place: str) -> None:
    found = ROOT / place
    files = [path for path in found.rglob("*") if path.suffix in SUFFIXES] or [found]

    lines = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in files
        if "darkroom/client" not in path.as_posix()  # built, and not ours to name
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for match in FORMER.finditer(line)
    ]

    assert lines == []
