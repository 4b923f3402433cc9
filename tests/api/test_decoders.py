"""Processes that decode: how many pictures they take on, and how they end."""

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import psutil
import pytest
from PIL import Image

from darkroom.images.decoder import Purpose
from darkroom.images.decoder_pool import MAX_WAITING, BusyError, Decoders
from tests.waiting import PATIENCE_S

CALLERS = MAX_WAITING + 8

Start = Callable[[int], Decoders]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts decoders that are closed in the end."""
    started: list[Decoders] = []

    def make(count: int) -> Decoders:
        started.append(Decoders(count, timeout_s=60, memory_bytes=2**30, max_pixels=10**6))
        return started[-1]

    yield make
    for decoders in started:
        decoders.close()


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(buffer, "PNG")
    return buffer.getvalue()


def processes() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_a_picture_is_decoded_elsewhere(start: Start) -> None:
    decoded = start(1).decode(picture(), Purpose.IMAGE)

    assert (decoded.width, decoded.height) == (64, 48)
    assert (decoded.darkest, decoded.lightest) == (0, 255)
    with Image.open(io.BytesIO(decoded.png)) as stored:
        assert stored.getpixel((8, 8)) == (255, 0, 0)


def test_closed_decoders_leave_no_process_behind(start: Start) -> None:
    before = processes()
    decoders = start(2)
    decoders.decode(picture(), Purpose.MASK)
    born = set(processes()) - set(before)
    assert len(born) == 2

    decoders.close()

    _, alive = psutil.wait_procs(born, timeout=PATIENCE_S)
    assert alive == []


def test_only_so_many_pictures_wait(start: Start) -> None:
    before = processes()
    decoders = start(1)
    decoders.decode(picture(), Purpose.IMAGE)
    (decoder,) = set(processes()) - set(before)
    decoder.suspend()
    refused = threading.Semaphore(0)

    def ask() -> bool:
        try:
            decoders.decode(picture(), Purpose.IMAGE)
        except BusyError:
            refused.release()
            return False
        return True

    with ThreadPoolExecutor(CALLERS) as callers:
        answers: list[Future[bool]] = [callers.submit(ask) for _ in range(CALLERS)]
        for _ in range(CALLERS - MAX_WAITING - 1):
            assert refused.acquire(timeout=PATIENCE_S)  # while all others still wait
        decoder.resume()
        served = [answer.result() for answer in answers]

    assert served.count(True) == MAX_WAITING + 1
