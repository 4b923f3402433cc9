"""Doorbells wake; nothing depends on them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from darkroom.config import Settings
from darkroom.queue.doorbell import Doorbell, Doorbells, LocalDoorbells, Tail, doorbells
from darkroom.queue.store import Store
from darkroom.responses import Event, EventType
from darkroom.storage.database import Database, Place
from tests import postgres
from tests.queue.conftest import accept
from tests.waiting import eventually

LONG_S = 3600  # which a test may not take

Process = Callable[[], Doorbells]


@pytest.fixture(params=["one machine", pytest.param("two machines", marks=pytest.mark.slow)])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Process]:
    """The doorbells of another process, on the same machine or on one with a folder of its own."""
    with ExitStack() as stack:

        def start() -> Doorbells:
            if request.param == "one machine":
                return LocalDoorbells(tmp_path)
            server = request.getfixturevalue("postgres_server")
            started = doorbells(settings(server.url()))
            stack.callback(started.close)
            return started

        yield start


def settings(url: Place) -> Settings:
    assert not isinstance(url, Path)
    return Settings(storage={"database_url": url.render_as_string(hide_password=False)})


def test_a_ring_wakes_who_waits(process: Process) -> None:
    with process().listen("worker") as bell:
        assert bell.wait(LONG_S)  # which can be heard now
        process().ring("worker")

        assert bell.wait(LONG_S)
        assert not bell.wait(0)  # one ring, one waking


def test_all_who_listen_are_woken_and_no_others(process: Process) -> None:
    with (
        process().listen("web") as first,
        process().listen("web") as second,
        process().listen("worker") as other,
    ):
        for bell in (first, second, other):
            assert bell.wait(LONG_S)
        process().ring("web")

        assert first.wait(LONG_S)
        assert second.wait(LONG_S)
        assert not other.wait(0)


def test_a_ring_that_nobody_hears_is_fine(process: Process) -> None:
    process().ring("web")


def test_a_bell_that_is_closed_is_not_rung(process: Process) -> None:
    bells = process()
    bells.listen("worker").close()
    with bells.listen("worker") as bell:
        assert bell.wait(LONG_S)
        process().ring("worker")

        assert bell.wait(LONG_S)


def test_a_process_can_wake_itself(process: Process) -> None:
    with process().listen("worker") as bell:
        assert bell.wait(LONG_S)
        bell.ring()

        assert bell.wait(LONG_S)


# --- on one machine ------------------------------------------------------------------------


def test_the_folder_may_have_any_length(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()

    assert_it_rings(LocalDoorbells(deep))


def test_the_folders_file_system_need_not_take_sockets() -> None:
    assert_it_rings(LocalDoorbells(Path("/sys")))  # refuses them as SMB, SSHFS and exFAT do


def test_the_bell_of_a_dead_process_is_swept_away(tmp_path: Path) -> None:
    dead = LocalDoorbells(tmp_path).listen("web")
    Doorbell.close(dead)  # as the kernel does after kill -9; the file stays
    (left,) = tmp_path.iterdir()

    assert_it_rings(LocalDoorbells(tmp_path))
    assert not left.exists()


def assert_it_rings(bells: Doorbells) -> None:
    with bells.listen("web") as bell:
        assert bell.wait(LONG_S)
        bells.ring("web")
        assert bell.wait(LONG_S)


# --- between machines ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("another_place", ["postgresql"], indirect=True)
def test_an_event_of_one_host_reaches_the_other_long_before_it_looks(
    place: Place, store: Store, opened: Database
) -> None:
    here, there = doorbells(settings(place)), doorbells(settings(place))
    heard: list[Event] = []
    with here.listen("web") as bell:
        tail = Tail(Store(opened), bell, LONG_S, heard.extend)
        tail.start()

        job = accept(store)
        there.ring("web")

        eventually(lambda: heard)
        assert [(event.job_id, event.type) for event in heard] == [(job, EventType.QUEUED)]
        tail.stop()
    here.close()
    there.close()


@pytest.mark.slow
def test_rings_go_on_when_the_database_server_comes_back(postgres_server: postgres.Server) -> None:
    """It rings once by itself then, for what it may have missed."""
    url = settings(postgres_server.url())
    here, there = doorbells(url), doorbells(url)
    with here.listen("worker") as bell:
        assert bell.wait(LONG_S)

        postgres_server.kill()
        there.ring("worker")  # neither waits nor fails
        postgres_server.start()

        assert bell.wait(LONG_S)
        there.ring("worker")
        assert bell.wait(LONG_S)
    here.close()
    there.close()
