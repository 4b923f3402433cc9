"""Pictures are encoded and stored beside the loop, and every promise of the loop is kept."""

import errno
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import select

from darkroom.engine.base import EngineEvent, Finished, ImageReady, Started, Stepped
from darkroom.images import codec
from darkroom.queue import picture_writer
from darkroom.queue.picture_writer import MAX_WAITING
from darkroom.queue.store import Store
from darkroom.queue.worker import Dispatcher
from darkroom.requests import OutputFormat, Task
from darkroom.responses import Job, JobStatus
from darkroom.storage.database import Database
from darkroom.storage.files import FilesUnavailableError, FolderFiles
from darkroom.storage.tables import SpeedRow
from tests.queue.conftest import ME, Clock, Hire, Play, accept, upload_of
from tests.queue.scripted import PICTURE


class SlowDisk(FolderFiles):
    """Writes nothing until the gate is open; afterwards it fails for the names in `full`.

    It may be away, and calls `on_away` when somebody writes then.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate = threading.Event()
        self.gates: dict[str, threading.Event] = {}  # in place of it, for these names
        self.full: set[str] = set()
        self.is_away = False
        self.on_away: Callable[[], object] = lambda: None

    def write(self, name: str, data: bytes, may_replace: Callable[[], None] | None = None) -> None:
        if self.is_away:
            self.on_away()
            raise FilesUnavailableError("the place of files cannot be reached")
        if not self.gates.get(name, self.gate).wait(20):
            raise TimeoutError("nobody opened the gate")
        if name in self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(name, data, may_replace)


@pytest.fixture
def disk(tmp_path: Path) -> SlowDisk:
    return SlowDisk(tmp_path / "images")


def found(store: Store, job_id: str) -> Job:
    job = store.job(job_id, ME)
    assert job is not None
    return job


def at(tick: int, act: Callable[[], object]) -> Callable[[Dispatcher], None]:
    """Does something in the tick of this number, the first being 1."""
    ticks = count(1)
    return lambda _: act() if next(ticks) == tick else None


def steps(job_id: str, total: int) -> list[list[EngineEvent]]:
    return [[Stepped(job_id, step, total)] for step in range(1, total + 1)]


def test_the_engine_goes_on_while_a_picture_is_stored(
    store: Store, play: Play, disk: SlowDisk
) -> None:
    one, two = accept(store), accept(store)
    seen: list[Job] = []

    def look() -> None:
        seen.append(found(store, one))
        disk.gate.set()

    play(
        [Started(one, 1), Started(two, 5)],
        [ImageReady(one, 0, 7, PICTURE), Finished(one)],
        *steps(two, 5),
        [ImageReady(two, 0, 7, PICTURE), Finished(two)],
        files=disk,
        between=at(5, look),
    )

    # It was over for the engine, but neither recorded nor ended: its file was not there.
    assert (seen[0].status, seen[0].images) == (JobStatus.RUNNING, ())
    for job_id in (one, two):
        assert found(store, job_id).status is JobStatus.SUCCEEDED
        told = [event.type.value for event in store.events_after(0, job_id)]
        assert told[-2:] == ["image", "succeeded"]


def test_the_loop_waits_for_a_disk_that_is_behind_and_its_pulse_goes_on(
    store: Store, play: Play, disk: SlowDisk
) -> None:
    job_id = accept(store, num_images=MAX_WAITING + 2)
    ticks = [Started(job_id, 1)], *([ImageReady(job_id, n, n, PICTURE)] for n in range(6))
    done: list[int] = []  # ticks
    at_pulse: list[int] = []  # ticks before each turn

    def pulse(_: Dispatcher) -> None:
        at_pulse.append(len(done))
        if not disk.gate.is_set() and at_pulse[-3:] == [len(done)] * 3:
            opened_after.append(len(done))  # three turns without a tick, and the loop lives
            disk.gate.set()

    opened_after: list[int] = []
    play(*ticks, [Finished(job_id)], files=disk, between=lambda _: done.append(1), pulse=pulse)

    assert opened_after == [1 + MAX_WAITING]
    assert [image.index for image in found(store, job_id).images] == list(range(MAX_WAITING + 2))


def test_a_cancelled_job_keeps_what_was_ready(
    store: Store, play: Play, disk: SlowDisk, clock: Clock
) -> None:
    cancelled, other = accept(store), accept(store)

    def cancel() -> None:
        store.cancel(cancelled, ME)
        clock.now += 1  # time to look

    cancels, opens = at(3, cancel), at(6, disk.gate.set)

    def between(dispatcher: Dispatcher) -> None:
        cancels(dispatcher)
        opens(dispatcher)

    play(
        [Started(cancelled, 2), Started(other, 5)],
        [ImageReady(cancelled, 0, 7, PICTURE)],
        *steps(other, 5),
        [Finished(other)],
        files=disk,
        between=between,
    )

    job = found(store, cancelled)
    assert job.status is JobStatus.CANCELLED
    assert [image.id for image in job.images] == [f"{cancelled}-0"]
    assert list(disk.names()) == [f"{cancelled}-0"]


def test_a_full_disk_fails_the_job_whose_picture_it_does_not_take(
    store: Store, play: Play, disk: SlowDisk
) -> None:
    bad, good = accept(store, num_images=2), accept(store)
    disk.full, _ = {f"{bad}-0"}, disk.gate.set()

    play(
        [Started(bad, 1), Started(good, 1)],
        [ImageReady(bad, 0, 7, PICTURE), ImageReady(bad, 1, 8, PICTURE), Finished(bad)],
        [ImageReady(good, 0, 7, PICTURE), Finished(good)],
        files=disk,
    )

    job = found(store, bad)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error.type, job.error.status) == ("urn:darkroom:problem:storage", 507)
    assert job.error.detail == "the picture could not be stored: No space left on device"
    assert [image.index for image in job.images] == [1]
    assert found(store, good).status is JobStatus.SUCCEEDED
    assert sorted(disk.names()) == sorted([f"{bad}-1", f"{good}-0"])


def test_a_picture_of_a_job_that_someone_else_took_is_not_recorded(
    store: Store, play: Play, disk: SlowDisk, clock: Clock, hire: Hire
) -> None:
    job_id = accept(store)
    rival = hire("rival")

    def rob() -> None:
        rival.recover_lapsed()
        clock.now += 31
        rival.recover_lapsed()
        rival.claim(busy=False)
        disk.gate.set()

    play(
        [ImageReady(job_id, 0, 7, PICTURE)],
        [Finished(job_id)],
        files=disk,
        between=at(2, rob),
    )

    job = found(store, job_id)
    assert (job.status, job.attempts, job.images) == (JobStatus.RUNNING, 2, ())


def test_a_worker_that_is_stopped_stores_what_is_ready(
    store: Store, play: Play, disk: SlowDisk
) -> None:
    job_id = accept(store)

    def pulse(dispatcher: Dispatcher) -> None:
        if dispatcher._stopping.is_set():
            disk.gate.set()

    play([ImageReady(job_id, 0, 7, PICTURE), Finished(job_id)], files=disk, pulse=pulse)

    assert found(store, job_id).status is JobStatus.SUCCEEDED


def test_a_worker_without_time_gives_the_job_back_and_leaves_no_record_without_its_file(
    store: Store, play: Play, disk: SlowDisk, clock: Clock
) -> None:
    """A picture is being written when it stops; that one has its file, and those behind it none."""
    job_id = accept(store, num_images=3)

    def pulse(dispatcher: Dispatcher) -> None:
        if not dispatcher._stopping.is_set():
            return
        clock.now += 11  # more than queue.shutdown_timeout_s
        thread = dispatcher._pictures._thread
        end = thread.shutdown

        def shutdown(*, cancel_futures: bool) -> None:
            end(wait=False, cancel_futures=cancel_futures)
            disk.gate.set()
            end()

        thread.shutdown = shutdown  # type: ignore[method-assign,assignment]

    ready = [ImageReady(job_id, n, n, PICTURE) for n in range(3)]
    play([*ready, Finished(job_id)], files=disk, pulse=pulse)

    job = found(store, job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
    assert [image.id for image in job.images] == list(disk.names()) == [f"{job_id}-0"]


def test_a_picture_is_not_lost_with_the_engine(store: Store, play: Play, disk: SlowDisk) -> None:
    ready, lost = accept(store), accept(store)

    with pytest.raises(IndexError):  # the script is over: the engine is gone
        play(
            [Started(ready, 1), Started(lost, 2)],
            [ImageReady(ready, 0, 7, PICTURE), Finished(ready)],
            [Stepped(lost, 1, 2)],
            files=disk,
            between=at(4, disk.gate.set),
        )

    assert found(store, ready).status is JobStatus.SUCCEEDED
    assert found(store, lost).status is JobStatus.RUNNING


def test_storing_costs_a_job_only_what_the_loop_waits_for(
    store: Store, play: Play, disk: SlowDisk, clock: Clock, opened: Database
) -> None:
    """The engine works while the first picture is stored. For the second one the loop waits."""
    one, two = accept(store, width=64), accept(store)
    gate = threading.Event()
    disk.gates = {f"{two}-0": gate}

    def first_is_stored() -> bool:
        with opened.read() as session:
            return session.scalar(select(SpeedRow.pixels)) is not None

    def waits(_: Dispatcher, timeout_s: float) -> None:
        if timeout_s and not gate.is_set() and first_is_stored():
            clock.now += 5
            gate.set()

    play(
        [Started(one, 1), Started(two, 4)],
        [Stepped(one, 1, 1)],
        [ImageReady(one, 0, 7, PICTURE), Finished(one)],
        *steps(two, 4),
        [ImageReady(two, 0, 7, PICTURE), Finished(two)],
        files=disk,
        tick_s=1.0,
        between=at(5, disk.gate.set),
        waits=waits,
    )

    with opened.read() as session:
        rows = session.scalars(select(SpeedRow).order_by(SpeedRow.pixels)).all()
        speeds = [(row.step_seconds, row.other_seconds) for row in rows]
    assert speeds == [(1.0, 0.5 + 1.0), (1.0, 0.5 + 1.0 + 5.0)]


@pytest.mark.parametrize("level", [0, 1, 9])
def test_png_level_changes_the_size_and_no_pixel(level: int) -> None:
    picture = Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 50).convert("RGB")

    usual, other = codec.encode(picture, "png"), codec.encode(picture, "png", png_level=level)

    assert codec.encode(picture, "png", png_level=6) == usual
    assert (len(other) > len(usual)) == (level < 6)


def test_a_picture_waits_for_the_place_of_files_to_come_back(
    store: Store, play: Play, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_writer, "RETRY_S", 0.01)
    job = accept(store)
    disk.gate.set()
    disk.is_away = True
    tries = count(1)

    def come_back() -> None:
        disk.is_away = next(tries) < 5

    disk.on_away = come_back
    play([Started(job, 1)], [ImageReady(job, 0, 7, PICTURE), Finished(job)], files=disk)

    assert found(store, job).status is JobStatus.SUCCEEDED
    assert next(tries) == 6
    assert disk.read(f"{job}-0")


def test_a_worker_that_stops_while_the_place_is_away_gives_the_job_back(
    store: Store, play: Play, disk: SlowDisk
) -> None:
    job = accept(store)
    disk.is_away = True
    hurried = threading.Event()

    def stop(dispatcher: Dispatcher, _seconds: float) -> None:
        if not hurried.is_set():
            hurried.set()
            dispatcher.stop()
            dispatcher.hurry()

    play([Started(job, 1)], [ImageReady(job, 0, 7, PICTURE), Finished(job)], files=disk, waits=stop)

    assert found(store, job).status is JobStatus.QUEUED
    assert found(store, job).images == ()


class Unreadable(FolderFiles):
    """Is away for the first reads of a source, so many; `between` is called in each."""

    SOURCE = "up0123456789abcdef01234567"

    def __init__(self, root: Path, reads: int, between: Callable[[], object]) -> None:
        super().__init__(root)
        self.left, self._between = reads, between
        self.write(self.SOURCE, codec.encode(PICTURE, OutputFormat.PNG))

    def read(self, name: str) -> bytes:
        if self.left:
            self.left -= 1
            self._between()
            raise FilesUnavailableError("the place of files cannot be reached")
        return super().read(name)

    def accept(self, store: Store) -> str:
        asked = {"task": Task.IMG2IMG, "image": f"image:{self.SOURCE}"}
        return accept(store, uploads=(upload_of(self.SOURCE),), **asked)


def test_a_job_waits_until_its_source_can_be_read(
    store: Store, play: Play, clock: Clock, tmp_path: Path
) -> None:
    seen: list[Job] = []
    away = Unreadable(tmp_path / "images", 5, lambda: seen.append(found(store, job)))
    job = away.accept(store)

    play(
        [Started(job, 1)],
        [ImageReady(job, 0, 7, PICTURE), Finished(job)],
        files=away,
        waits=lambda *_: passing(clock),
    )

    assert [look.status for look in seen] == [JobStatus.RUNNING] * 5
    assert found(store, job).status is JobStatus.SUCCEEDED


def test_a_job_whose_source_cannot_be_read_can_be_cancelled(
    store: Store, play: Play, clock: Clock, tmp_path: Path
) -> None:
    away = Unreadable(tmp_path / "images", 1000, lambda: store.cancel(job, ME))
    job = away.accept(store)

    play(files=away, waits=lambda *_: passing(clock))

    assert found(store, job).status is JobStatus.CANCELLED


def passing(clock: Clock) -> None:
    """Time for the next look at the queue."""
    clock.now += 0.02
