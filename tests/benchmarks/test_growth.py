"""Nothing on the path of a request costs more because more is stored."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from benchmarks import growth
from benchmarks.suite import QUICK

FEW, MANY = 1_000, 10_000
EVERY = 10  # instructions of SQLite from one call of the counter to the next


class Counter:
    """Counts what SQLite does: instructions of its virtual machine, which no other load changes."""

    calls = 0

    def call(self) -> int:
        self.calls += 1
        return 0


@contextmanager
def counting() -> Iterator[Counter]:
    counter = Counter()

    def watch(connection: object, *_: object) -> None:
        driver = connection.connection.driver_connection  # type: ignore[attr-defined]
        driver.set_progress_handler(counter.call, EVERY)

    event.listen(Engine, "before_cursor_execute", watch)
    try:
        yield counter
    finally:
        event.remove(Engine, "before_cursor_execute", watch)


def instructions(place: Path, size: int) -> dict[str, int]:
    """Of each operation, in tens, with so many jobs stored."""
    queue = growth.Queue(place, size, place.parent / f"{size}")
    found = {}
    for name, operation in queue.operations().items():
        with counting() as counter:
            operation()
        found[name] = counter.calls
    queue.close()
    return found


def test_no_operation_does_more_when_ten_times_as_much_is_stored(
    empty_database: Path, tmp_path: Path
) -> None:
    few, many = (
        instructions(Path(shutil.copy(empty_database, tmp_path / f"{size}.db")), size)
        for size in (FEW, MANY)
    )

    assert {name for name in many if many[name] > 1.2 * few[name] + 10} == set()


@pytest.mark.slow
def test_the_benchmark_measures_both_databases() -> None:
    figures = growth.measure(QUICK)

    for kind in ("SQLite", "PostgreSQL"):
        ratios = {each.name for each in figures if kind in each.name and "÷" in each.name}
        assert {f"claim, {kind}, 10,000 ÷ 1,000", f"list, {kind}, 10,000 ÷ 1,000"} <= ratios
    assert all(each.median > 0 for each in figures)
