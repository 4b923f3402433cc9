"""docs/benchmarks.md: one suite's figures replace its section and leave the others.

Suites without figures are those that this machine cannot run.
"""

from benchmarks import page
from benchmarks.figure import Figure
from benchmarks.suite import Suite

PAGE = """\
# Benchmarks

How it was.

## First

Measured long ago.

## Third

Nothing of this is left.

## Not measured any more

Old.
"""


def suite(title: str) -> Suite:
    return Suite(title.lower(), title, f"How the {title.lower()} is measured.", lambda _: [])


def test_a_section_is_replaced_or_put_in_its_place() -> None:
    figures = [Figure("a time", (1.0, 3.0), "s")]
    measured = [(suite("Third"), figures), (suite("Second"), []), (suite("First"), [])]

    written = page.updated(PAGE, measured, ["First", "Second", "Third"])

    assert [line for line in written.splitlines() if line.startswith("#")] == [
        *("# Benchmarks", "## First", "## Second", "## Third")
    ]
    assert "Measured long ago." in written
    assert "How the second is measured.\n\nNot measured: this machine has no GPU." in written
    assert "| a time | 2.00 s | 1.00–3.00 | 2 |" in written
    assert "Nothing of this is left." not in written
    assert page.updated(written, [], ["First", "Second", "Third"]) == written
