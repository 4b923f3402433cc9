"""Addresses that open one picture for an hour, for whoever has them."""

import stat
from pathlib import Path

import pytest

from darkroom.api.auth.signed_urls import LIFETIME_S, Signatures


class Clock:
    """Seconds since the epoch, as a test sets them."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signatures(tmp_path: Path, clock: Clock) -> Signatures:
    return Signatures(tmp_path / "signing.key", clock)


def parts(query: str) -> tuple[int, str]:
    """Expiry and signature of an address."""
    found = dict(part.split("=") for part in query.split("&"))
    return int(found["expires"]), found["signature"]


def test_an_address_holds_for_an_hour(signatures: Signatures, clock: Clock) -> None:
    expires, signature = parts(signatures.sign("job-0"))

    assert signatures.left_s("job-0", expires, signature) == LIFETIME_S
    clock.now += LIFETIME_S - 1
    assert signatures.left_s("job-0", expires, signature) == 1
    clock.now += 1
    assert signatures.left_s("job-0", expires, signature) == 0


def test_an_address_is_good_for_nothing_else(signatures: Signatures) -> None:
    expires, signature = parts(signatures.sign("job-0"))

    assert signatures.left_s("job-1", expires, signature) == 0
    assert signatures.left_s("job-0", expires + 1, signature) == 0
    assert signatures.left_s("job-0", expires, signature[:-1]) == 0
    assert signatures.left_s("job-0", expires, "ä") == 0


def test_the_key_outlives_the_process_and_is_nobody_elses(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "signing.key"
    expires, signature = parts(Signatures(path, clock).sign("job-0"))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Signatures(path, clock).left_s("job-0", expires, signature) == LIFETIME_S
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_key_is_replaced(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "signing.key"
    path.write_bytes(b"short")
    expires, signature = parts(Signatures(path, clock).sign("job-0"))

    assert Signatures(path, clock).left_s("job-0", expires, signature) == LIFETIME_S
