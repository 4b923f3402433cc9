"""Listening: nothing is lost or doubled, nobody hears what is not theirs, nobody is waited for."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from darkroom.asgi.events import (
    MAX_BACKLOG_BYTES,
    Chunk,
    Listener,
    TooSlowError,
    differs,
    estimate_line,
)
from darkroom.asgi.limits import Threads
from darkroom.asgi.streams import RETRY, Streams
from darkroom.asgi.wait import EventStream
from darkroom.queue.store import Store
from darkroom.storage.database import Database
from darkroom.storage.records import Estimate
from tests.queue.conftest import accept
from tests.serving import parse_events

ANNA, BERT = "device:a", "device:b"

Playing = AsyncGenerator[bytes, None]


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Iterator[Store]:
    opened = Database(shutil.copy(empty_database, tmp_path))
    yield Store(opened)
    opened.close()


class House:
    """Streams over a real log, whose tail is at the test's command."""

    def __init__(self, store: Store, heartbeat_s: float = 60) -> None:
        self.store = store
        self.streams = Streams(store, heartbeat_s, page=10)
        self.threads = Threads(2, "test")
        self._heard = store.last_event_id()

    def play(self, job_id: str | None, client: str | None = None, after: int = 0) -> Playing:
        return self.play_wanted(EventStream(job_id, after, client))

    def play_wanted(self, wanted: EventStream) -> Playing:
        gone = asyncio.get_running_loop().create_future()
        return self.streams.play(wanted, self.threads, gone)

    async def tell(self) -> None:
        """Hand on what happened since the last time."""
        events = self.store.events_after(self._heard)
        self._heard = self.store.last_event_id()
        await asyncio.to_thread(self.streams.publish, events, asyncio.get_running_loop())


def play(store: Store, scene: Callable[[House], Awaitable[None]], **about: float) -> None:
    async def run() -> None:
        house = House(store, **about)
        try:
            await scene(house)
        finally:
            house.threads.close()

    asyncio.run(run())


def told(*parts: bytes) -> list[tuple[str, str]]:
    """Each event's kind and job."""
    text = b"".join(parts).decode()
    events = parse_events(iter(text.split("\n")))
    return [(event["event"], event["data"]["job_id"]) for event in events]


def test_what_was_logged_comes_first_and_then_what_happens(store: Store) -> None:
    async def scene(house: House) -> None:
        job = accept(store, ANNA)
        stream = house.play(job)
        assert await anext(stream) == RETRY
        assert told(await anext(stream)) == [("queued", job)]

        store.cancel(job, ANNA)
        await house.tell()  # the first event too, for a second time

        assert told(await anext(stream)) == [("cancelled", job)]
        assert [part async for part in stream] == []

    play(store, scene)


def test_what_happens_between_subscribing_and_reading_the_log_comes_once(store: Store) -> None:
    async def scene(house: House) -> None:
        job = accept(store, ANNA)
        stream = house.play(job)
        await anext(stream)  # from here on it listens
        store.cancel(job, ANNA)
        await house.tell()

        assert told(*[part async for part in stream]) == [("queued", job), ("cancelled", job)]

    play(store, scene)


def test_each_client_hears_of_its_own_jobs_and_an_owner_of_all(store: Store) -> None:
    async def scene(house: House) -> None:
        before = [("queued", accept(store, client)) for client in (ANNA, BERT)]
        mine, everybodys = house.play(None, ANNA), house.play(None)
        for stream in (mine, everybodys):
            await anext(stream)
        assert told(await anext(mine)) == before[:1]
        assert told(await anext(everybodys)) == before

        after = [("queued", accept(store, client)) for client in (BERT, ANNA)]
        await house.tell()

        assert told(await anext(mine)) == after[1:]
        assert told(await anext(everybodys)) == after

    play(store, scene)


def test_a_long_story_is_read_in_pages(store: Store) -> None:
    async def scene(house: House) -> None:
        accepted = [("queued", accept(store, ANNA)) for _ in range(35)]
        stream = house.play(None)
        assert told(*[await anext(stream) for _ in range(5)]) == accepted

    play(store, scene)


def test_who_may_not_listen_any_more_is_left_at_the_next_heartbeat(store: Store) -> None:
    async def scene(house: House) -> None:
        answers = iter([True, False])
        stream = house.play_wanted(EventStream(None, 0, ANNA, lambda: next(answers)))
        assert b"still here" in [part async for part in stream][-1]
        assert next(answers, None) is None

    play(store, scene, heartbeat_s=0.01)


def test_who_does_not_keep_up_is_dropped() -> None:
    async def scene() -> None:
        listener = Listener("abc", None)
        line = estimate_line("abc", Estimate(1, None))
        listener.push(Chunk([line] * (MAX_BACKLOG_BYTES // len(line.data))))
        assert len(await listener.take()) == 1
        listener.push(Chunk([line] * (1 + MAX_BACKLOG_BYTES // len(line.data))))
        with pytest.raises(TooSlowError):
            await listener.take()

    asyncio.run(scene())


def test_all_that_waits_ends_with_the_server_and_what_comes_later_too(store: Store) -> None:
    async def scene(house: House) -> None:
        job = accept(store, ANNA)
        stream = house.play(job)
        await anext(stream)
        await anext(stream)
        with house.streams.ending(job) as ended:
            house.streams.stop()
            await ended
        assert [part async for part in stream] == []
        assert [part async for part in house.play(job)] == [RETRY]
        with house.streams.ending(job) as ended:
            await ended
        assert house.streams.open == 0

    play(store, scene)


@pytest.mark.parametrize(
    ("new", "old", "notable"),
    [
        (Estimate(1, 10.0), Estimate(2, 10.0), True),
        (Estimate(1, 10.0), Estimate(1, 11.9), False),
        (Estimate(1, 10.0), Estimate(1, 12.1), True),
        (Estimate(1, 1.0), Estimate(1, 1.3), True),
        (Estimate(1, 10.0), Estimate(1, None), True),
        (Estimate(1, None), Estimate(1, None), False),
    ],
)
def test_a_change_is_told_when_it_is_notable(new: Estimate, old: Estimate, notable: bool) -> None:
    assert differs(new, old) is notable
