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


@pytest.mark.usefixtures("interrupted")
def test_every_request_counts_once() -> None:
    counts, ready = Counts(), Barrier(THREADS, timeout=30)

    def ask(key: str) -> None:
        for _ in range(TIMES):
            ready.wait()
            counts.incr(key, expiry=3600)
            if ready.wait() == 0:
                counts.timer.join()  # the next ones find none that runs

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(ask, repeat("an address", THREADS)):
            pass

    assert counts.get("an address") == THREADS * TIMES
