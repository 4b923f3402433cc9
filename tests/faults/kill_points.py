"""Runs one operation on a queue again and again, and is killed one statement later each time.

`python -m tests.faults.kill_points FOLDER OPERATION STRIDE [URL]` kills at every STRIDE-th point,
checks after each death that the queue is intact and the job can be brought to its picture, and
prints at how many points it died. It loads no torch and starts no thread, so that it can fork. The
queue is a file, or on the PostgreSQL server whose superuser and database the URL names.

A point is before and after every SQL statement, commit, fsync, rename and unlink, and before every
line of the queue, of storage, of webhooks and of `api/routes/submit.py`.
"""

import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from hashlib import sha256
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from flask import Flask, g
from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.engine import URL, make_url

import darkroom
from darkroom.api import context
from darkroom.api.auth import access
from darkroom.api.callers import HOLD, Callers, Hold
from darkroom.api.checks import Source
from darkroom.api.prepare import PreparedRequest
from darkroom.api.routes import submit
from darkroom.config import Settings
from darkroom.destinations import parse
from darkroom.images.decoder import Decoded
from darkroom.ops import logs
from darkroom.queue.doorbell import LocalDoorbells
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.requests import Img2Img
from darkroom.responses import EventType, Job, JobStatus, WebhookState
from darkroom.storage import database, reconcile
from darkroom.storage.database import Database
from darkroom.storage.files import CLOCK, FolderFiles
from darkroom.storage.records import Claim, NewJob
from darkroom.storage.tables import ClientRow, ImageRow, JobRow, UploadRow

CODE = Path(darkroom.__file__).parent
TRACED = {
    str(path)
    for path in (
        *(CODE / "queue").glob("*.py"),
        *(CODE / "storage").glob("*.py"),
        *(CODE / "webhooks").glob("*.py"),
        CODE / "api" / "routes" / "submit.py",
    )
}
UPLOAD, PICTURE = b"a source picture" * 1000, b"a developed picture" * 1000
KEY = "asked once"
WEBHOOK = parse("http://127.0.0.1:9/told")
REQUEST = Img2Img(
    model="tintype",
    prompt="a red fox",
    negative_prompt="",
    width=128,
    height=128,
    num_inference_steps=2,
    guidance_scale=3.0,
    num_images=1,
    seed=7,
    scheduler="ddim",
    image="image:up1",
    strength=1.0,
)


class Ground:
    """Data folders, each with a database, that are copies of a prepared one.

    Args:
        folder: of all of them.
        url: of a database on the server that has their databases, or None.
    """

    def __init__(self, folder: Path, url: URL | None) -> None:
        self._folder, self._url = folder, url

    def settings(self, name: str) -> Settings:
        storage = {}
        if self._url is not None:
            storage["database_url"] = self._url.set(database=name).render_as_string(False)
        return Settings(data_dir=self._folder / name, storage=storage)

    def prepare(self) -> Settings:
        self._execute("CREATE DATABASE prepared")
        settings = self.settings("prepared")
        database.migrate(database.place_of(settings))
        settings.data_dir.mkdir(exist_ok=True)
        return settings

    def copy(self, name: str) -> Settings:
        shutil.copytree(self._folder / "prepared", self._folder / name)
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE prepared')
        return self.settings(name)

    def remove(self, name: str) -> None:
        shutil.rmtree(self._folder / name)
        self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        """On the server, if there is one. No connection stays open, for processes fork."""
        if self._url is not None:
            engine = create_engine(self._url, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.exec_driver_sql(statement)
            engine.dispose()


class House:
    """A data folder, opened."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(database.place_of(settings))
        self.store = Store(self.database, settings=self.settings.queue)
        self.files = FolderFiles(self.settings.images_dir)
        # The preparations and the operation are one process, and so have one lease.
        self.worker = Leases(self.database, "w", lease_s=30, max_attempts=3, lease="of-w")

    def close(self) -> None:
        self.database.close()

    def names(self) -> Counter[str]:
        """Of all files but the one that tells the place's time."""
        files = (path for path in self.settings.images_dir.rglob("*") if path.is_file())
        return Counter(path.name for path in files if path.name != CLOCK)

    def jobs(self) -> list[Job]:
        return self.store.jobs(None, before=None, limit=10, status=None)[0]

    def story(self, job: Job) -> list[EventType]:
        return [found.type for found in self.store.events_after(0, job.id)]


def arrived() -> PreparedRequest:
    """A request with an upload, as `api.prepare` returns it. The upload is named by the process."""
    reference = f"image:up{os.getpid()}"
    return PreparedRequest(
        REQUEST.model_copy(update={"image": reference}),
        REQUEST.workload,
        (Source(Decoded(UPLOAD, 8, 8, darkest=0, lightest=255), reference, (8, 8)),),
        "f",
        WEBHOOK,
    )


# --- what is interrupted -------------------------------------------------------------------


def accept(house: House) -> None:
    """As the route does it."""
    app = Flask("kill_points")
    known = {
        "settings": house.settings,
        "store": house.store,
        "doorbells": LocalDoorbells(house.settings.data_dir),
        "files": house.files,
        "callers": Callers(house.store, house.settings.web.abandoned_s),
    }
    unused = {field.name: None for field in fields(context.Context)}
    context.install(app, context.Context(**(unused | known)))  # type: ignore[arg-type]
    held = {HOLD: Hold()}
    with app.test_request_context("/img2img", method="POST", environ_overrides=held):
        g.request_id, g.caller = "12345678", access.LOCAL
        submit.accept(arrived(), KEY)


def queue(house: House) -> None:
    taken = arrived()
    uploads = taken.store(house.files)
    house.store.accept(
        NewJob("local", "me", taken.request, taken.workload, uploads, "f", KEY, webhook=WEBHOOK)
    )


def claim(house: House) -> Claim | None:
    return house.worker.claim(busy=False)


def finish(house: House) -> None:
    """As the dispatcher does it: bytes, record, end."""
    (job,) = house.jobs()
    picture = f"{job.id}-0"
    house.files.write(picture, PICTURE)
    house.worker.add_image(
        ImageRow(
            id=picture,
            job_id=job.id,
            index=0,
            seed=7,
            width=8,
            height=8,
            content_type="image/png",
            bytes=len(PICTURE),
            sha256=sha256(PICTURE).hexdigest(),
        )
    )
    house.worker.finish(job.id, JobStatus.SUCCEEDED)


def recover(house: House) -> int:
    return house.worker.recover_own()


# --- what must be true afterwards ----------------------------------------------------------


def check_whole(house: House) -> None:
    """No file is half there, no record lacks its file, no job is in an illegal state."""
    with house.database.read() as session:
        connection = session.connection()
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        for row in session.scalars(select(JobRow)):
            running = row.status == JobStatus.RUNNING
            assert (row.lease is not None, row.lease_until is not None) == (running, running)
            assert row.worker is not None or not running  # who worked on it last stays known
            assert (row.finished_at is not None) == JobStatus(row.status).terminal
        recorded = [*session.scalars(select(ImageRow.id)), *session.scalars(select(UploadRow.id))]
        tickets = session.scalars(select(ClientRow.client)).all()
    for name in recorded:
        assert house.files.read(name) == (UPLOAD if name.startswith("up") else PICTURE)
    for name in house.names():
        if not name.endswith(".tmp"):
            assert house.files.read(name) in (UPLOAD, PICTURE)
    for job in house.jobs():
        story = house.story(job)
        assert story[0] is EventType.QUEUED
        assert sum(kind.terminal for kind in story) == job.status.terminal
        assert story.count(EventType.IMAGE) == len(job.images)
        assert tickets == ["local"]
        assert (
            job.webhook is not None
        )  # whoever is to be told of an end is told of it, and of no other
        due = job.webhook.state is WebhookState.PENDING
        assert due == job.status.terminal


def check_accept(house: House, done: bool) -> None:
    """What was acknowledged is there; asked again, as a caller without an answer would, it is one
    job."""
    before = house.jobs()
    assert len(before) <= 1
    assert before or not done
    with house.database.read() as session:
        assert len(session.scalars(select(UploadRow)).all()) == len(before)
    accept(house)
    assert [job.id for job in house.jobs()][-1:] == [job.id for job in before or house.jobs()]


def check_claim(house: House, done: bool) -> None:
    (job,) = house.jobs()
    assert (job.status, job.attempts) in ((JobStatus.QUEUED, 0), (JobStatus.RUNNING, 1))
    assert job.status is JobStatus.RUNNING or not done


def check_finish(house: House, done: bool) -> None:
    (job,) = house.jobs()
    assert job.status in (JobStatus.RUNNING, JobStatus.SUCCEEDED)
    assert job.status is JobStatus.SUCCEEDED or not done


def check_recover(house: House, done: bool) -> None:
    (job,) = house.jobs()
    assert (job.status, job.attempts) in ((JobStatus.QUEUED, 1), (JobStatus.RUNNING, 1))
    assert job.status is JobStatus.QUEUED or not done


def check_it_goes_on(house: House) -> None:
    """After a start the job comes to its one picture, and no other file is left."""
    reconcile.at_web_start(house.settings)
    reconcile.at_worker_start(house.settings, house.database, "w")
    house.worker.recover_own()
    if claim(house):
        finish(house)
    if reconcile.is_shared(house.settings):
        long_after(house)
    (job,) = house.jobs()
    assert job.status is JobStatus.SUCCEEDED
    assert [image.id for image in job.images] == [f"{job.id}-0"]
    assert job.attempts <= 2
    check_whole(house)
    uploads = [name for name in house.names() if name.startswith("up")]
    assert house.names() == Counter([f"{job.id}-0", *uploads])
    with house.database.read() as session:
        assert sorted(uploads) == sorted(session.scalars(select(UploadRow.id)))


def long_after(house: House) -> None:
    """Where others may write, files are judged when they are old."""
    for path in house.settings.images_dir.rglob("*"):
        if path.is_file():
            os.utime(path, (0, 0))
    orphans = FolderFiles(house.settings.orphans_dir)
    reconcile.Review(house.database, house.files, orphans, lease_s=30, parts=256).sweep()


OPERATIONS: dict[str, tuple[list[Callable[[House], Any]], Callable[[House], Any], Any]] = {
    "accept": ([], accept, check_accept),
    "claim": ([queue], claim, check_claim),
    "finish": ([queue, claim], finish, check_finish),
    "recover": ([queue, claim], recover, check_recover),
}


# --- killing -------------------------------------------------------------------------------


def kill_at(point: int) -> None:
    """Have this process killed when it has come to that many points. There is no way back."""
    passed = count(1)

    def here(*_: object, **__: object) -> None:
        if next(passed) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            here()
            result = function(*args, **kwargs)
            here()
            return result

        return wrapped

    def trace(frame: FrameType, kind: str, _: object) -> Any:
        if frame.f_code.co_filename not in TRACED:
            return None
        if kind == "line":
            here()
        return trace

    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, around(getattr(os, name)))
    for moment in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(Engine, moment, here)
    sys.settrace(trace)


def forked(function: Callable[[], None]) -> int:
    """Run it in a process of its own; how that ended, as `os.waitpid` says it."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        function()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def main(ground: Ground, name: str, stride: int) -> int:
    """At how many points it was killed.

    Raises:
        SystemExit: what happened after one of the deaths, said on stderr already.
    """
    preparations, operation, check = OPERATIONS[name]
    house = House(ground.prepare())
    for step in preparations:
        step(house)
    house.close()
    # Once undisturbed, so that every child finds loaded and built what all of them need.
    house = House(ground.copy("rehearsal"))
    operation(house)
    check_it_goes_on(house)
    house.close()
    for deaths, point in enumerate(range(1, sys.maxsize, stride)):
        settings = ground.copy(f"{point}")

        def interrupted(settings: Settings = settings, point: int = point) -> None:
            house = House(settings)
            kill_at(point)
            operation(house)
            sys.settrace(None)

        def aftermath(settings: Settings = settings, done: bool = False) -> None:
            house = House(settings)
            check_whole(house)
            check(house, done)
            check_it_goes_on(house)

        ended = forked(interrupted)
        survived = os.WIFEXITED(ended)
        if os.WIFEXITED(ended) and os.WEXITSTATUS(ended):
            raise SystemExit(f"{name} failed by itself")
        if forked(lambda: aftermath(done=survived)):  # noqa: B023
            raise SystemExit(f"killed at point {point} of {name}: see {settings.data_dir}")
        ground.remove(f"{point}")
        if survived:
            return deaths
    raise AssertionError("unreachable")


if __name__ == "__main__":
    logs.configure("console", "kill_points")
    folder, operation, stride, *urls = sys.argv[1:]
    print(main(Ground(Path(folder), make_url(urls[0]) if urls else None), operation, int(stride)))
