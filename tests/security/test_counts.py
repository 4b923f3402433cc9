"""What rate limits count is right, however many threads count at once."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from threading import Barrier

import pytest

from darkroom.api.auth.counts import Counts

THREADS, TIMES = 8, 40


@pytest.fixture
def interrupted() -> Iterator[None]:
    """Threads are interrupted wherever they can be."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def count(counts: Counts, expiry: float) -> None:
    """Many threads count at once, again and again, when no timer runs."""
    ready = Barrier(THREADS, timeout=30)

    def ask(key: str) -> None:
        for _ in range(TIMES):
            ready.wait()
            counts.incr(key, expiry)
            if ready.wait() == 0:
                counts.timer.join()

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(ask, repeat("an address", THREADS)):
            pass


@pytest.mark.usefixtures("interrupted")
def test_every_request_counts_once() -> None:
    counts = Counts()

    count(counts, expiry=3600)

    assert counts.get("an address") == THREADS * TIMES


@pytest.mark.usefixtures("interrupted")
def test_what_lapses_meanwhile_counts_no_more() -> None:
    counts = Counts()

    count(counts, expiry=1e-4)

    assert counts.get("an address") == 0
