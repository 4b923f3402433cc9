"""`darkroom doctor`: checks whether the server can work, and says what to do if not."""

import platform
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from sqlalchemy import func, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from darkroom.catalog.listing import INCLUDED_UPSCALERS
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog
from darkroom.catalog.upscalers import UpscalerCatalog
from darkroom.config import Settings
from darkroom.engine.base import EngineEvent, EngineJob, Failed
from darkroom.ops import supervisor
from darkroom.ops.discovery import local_url
from darkroom.ops.watchdog import answers
from darkroom.queue.presence import Workers
from darkroom.requests import RESOLVED, Task
from darkroom.responses import WorkerInfo
from darkroom.storage import data_folder, database, reconcile
from darkroom.storage.data_folder import NotWritableError
from darkroom.storage.database import Database, DatabaseUnavailableError, NewerDatabaseError
from darkroom.storage.files import FilesUnavailableError, check_place, files_of, orphans_of
from darkroom.storage.tables import JobRow

GIB = 2**30
MIN_MEMORY_BYTES = 2 * GIB
MIN_DISK_BYTES = 2 * GIB
LOCKED_S = 5.0  # no transaction of ours takes so long


@dataclass(frozen=True)
class Finding:
    """The result of one check; `advice` says what to do if it is not ok."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Run all checks lazily. A check that raises becomes a finding that is not ok."""
    checks: tuple[tuple[str, Callable[[Settings], Finding]], ...] = (
        ("python", _python),
        ("torch", _torch),
        ("gpu", _gpu),
        ("memory", _memory),
        ("disk", check_disk),
        ("port", check_port),
        ("database", check_database),
        ("files", check_files),
        ("locks", check_locks),
        ("workers", check_workers),
        ("model", _model),
        ("add-ons", check_additions),
        ("picture", _picture),
    )
    for name, check in checks:
        try:
            yield check(settings)
        except PermissionError as error:
            refused = error if isinstance(error, NotWritableError) else _not_ours(settings)
            yield Finding(name, False, refused.detail, refused.advice)
        except Exception as error:
            detail = f"{type(error).__name__}: {error}"
            yield Finding(name, False, detail, "run `make install`, then `darkroom doctor` again")


def _not_ours(settings: Settings) -> NotWritableError:
    """Why a file of the data folder cannot be read."""
    return NotWritableError(settings.data_dir)


def _python(_settings: Settings) -> Finding:
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, platform.python_version(), "install Python 3.11 or newer")


def _torch(settings: Settings) -> Finding:
    import torch

    from darkroom.engine import cpu

    detail = f"{torch.__version__}, {cpu.thread_count(settings)} threads"
    if not has_gpu(settings):
        detail += f"; {settings.engine.backend} computes UNets"
        if cpu.multiplies_bfloat16() and settings.engine.dtype != "bfloat16":
            detail += "; engine.dtype: bfloat16 would be faster, with slightly different pictures"
    return Finding("torch", True, detail)


def _gpu(settings: Settings) -> Finding:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return Finding("gpu", True, f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    wanted = settings.engine.device
    found = torch.accelerator.current_accelerator(check_available=True)
    kind = "cpu" if found is None else found.type
    detail = "none; the CPU does the work" if found is None else kind
    advice = f"install the driver for {wanted}, or set engine.device to auto"
    return Finding("gpu", wanted in ("auto", "cpu", kind), detail, advice)


def has_gpu(settings: Settings) -> bool:
    """Whether the engine's weights are on a GPU. Loads torch, which takes seconds."""
    import torch

    return settings.engine.device != "cpu" and torch.accelerator.is_available()


def _memory(_settings: Settings) -> Finding:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    advice = "end other programs; 2 GiB are needed"
    return Finding("memory", free >= MIN_MEMORY_BYTES, f"{free / GIB:.1f} GiB free", advice)


def check_disk(settings: Settings) -> Finding:
    """Whether the data folder can be written, by this user, and has space."""
    data_folder.check(settings)
    folder = next(path for path in (settings.data_dir, *settings.data_dir.parents) if path.exists())
    data_folder.check_writable([folder])
    free = shutil.disk_usage(folder).free
    detail = f"{free / GIB:.1f} GiB free in {settings.data_dir}"
    if folder != settings.data_dir:
        detail += ", which the first start makes"
    advice = "free some space, or choose another --data-dir"
    return Finding("disk", free >= MIN_DISK_BYTES, detail, advice)


def check_port(settings: Settings) -> Finding:
    """Whether the server can listen, or this data folder's server already does."""
    try:
        supervisor.check_port(settings.host, settings.port)
    except supervisor.CannotListenError as error:
        if database.is_held(settings.data_dir / "web.lock") and answers(settings, "/healthz"):
            return Finding("port", True, f"{local_url(settings)} is held by this server")
        return Finding("port", False, str(error), error.advice)
    return Finding("port", True, f"{local_url(settings)} is free")


def check_database(settings: Settings) -> Finding:
    place = database.place_of(settings)
    if isinstance(place, URL):
        return _server_of(place)
    path = settings.database_path
    if not path.exists():
        for concern, remedy in data_folder.concerns(settings):
            return Finding("database", False, concern, remedy)
        return Finding("database", True, "none yet; the first start makes it")
    data_folder.check_writable([settings.data_dir, path])
    with closing(sqlite3.connect(path, timeout=LOCKED_S, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            detail = f"{path}: another program has kept it locked for {LOCKED_S:.0f} s"
            return Finding("database", False, detail, f"`fuser {path}` says which; end it")
        (schema,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        try:
            database.check_schema(path, schema)
        except NewerDatabaseError as error:
            return Finding("database", False, error.detail, error.advice)
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        dangling = connection.execute("PRAGMA foreign_key_check").fetchall()
        (jobs,) = connection.execute("SELECT count(*) FROM jobs").fetchone()
    if dangling:
        verdict = f"records of jobs that are not there: {len(dangling)}"
    for concern, remedy in data_folder.concerns(settings):
        return Finding("database", False, concern, remedy)
    advice = f"stop the server, put a backup in the place of {path}, or move it away; start again"
    return Finding("database", verdict == "ok", f"{path}: {verdict}, {jobs} jobs", advice)


def _server_of(url: URL) -> Finding:
    """Whether the database server answers and has a schema that this version knows."""
    advice = "is it running, and does storage.database_url name it rightly?"
    try:
        schema = database.schema(url)
        if schema is None:
            return Finding("database", True, f"{url}: empty; the first start makes its tables")
        database.check_schema(url, schema)
        with closing(Database(url)) as opened, opened.read() as session:
            jobs = session.scalar(select(func.count()).select_from(JobRow))
    except NewerDatabaseError as error:
        return Finding("database", False, error.detail, error.advice)
    except (DatabaseUnavailableError, SQLAlchemyError) as error:
        return Finding("database", False, f"{url}: {error}", advice)
    return Finding("database", True, f"{url}: {jobs} jobs")


def check_files(settings: Settings) -> Finding:
    """Whether every recorded picture has its file, and how many files have no record."""
    try:
        check_place(settings)
    except FilesUnavailableError as error:
        advice = error.advice or "is it running, and does storage.files_url name it rightly?"
        return Finding("files", False, str(error), advice)
    place = database.place_of(settings)
    if isinstance(place, Path) and not place.exists():
        return Finding("files", True, "none yet")
    data_folder.check_writable([settings.images_dir, settings.orphans_dir])
    with closing(Database(place)) as opened:
        missing = reconcile.missing(opened, files_of(settings))
    orphans = sum(1 for _ in orphans_of(settings).names())
    detail = f"recorded pictures whose file is not there: {missing}"
    is_folder = settings.storage.files_url is None
    if orphans:
        where = settings.orphans_dir if is_folder else "orphans"
        detail += f"; files that belonged to nothing, in {where}: {orphans}"
    where = f"is the disk of {settings.images_dir} there" if is_folder else "is it the right bucket"
    return Finding("files", missing == 0, detail, f"{where}? a backup may have the files")


def check_locks(settings: Settings) -> Finding:
    """Which processes of the server run, and whether a child of a dead one still holds its lock."""
    held, orphaned = [], []
    workers = sorted(settings.data_dir.glob("worker-*.lock"))
    for path in (settings.data_dir / "serve.lock", settings.data_dir / "web.lock", *workers):
        if not database.is_held(path):
            continue
        pid, _, namespace = path.read_text().strip().partition(" ")
        here = namespace in ("", database.processes())
        if here and not Path(f"/proc/{pid or 'none'}").exists():
            orphaned.append(path.name)
        held.append(f"{path.stem} (process {pid}{'' if here else ' of another container'})")
    if orphaned:
        detail = f"{', '.join(orphaned)}: held, but not by the process that took it"
        advice = "a child of a process that was killed still runs; `fuser` on the file says which"
        return Finding("locks", False, detail, advice)
    return Finding("locks", True, f"held by {', '.join(held)}" if held else "none is held")


def check_workers(settings: Settings) -> Finding:
    """Which workers run, on what, and whether they make the same pictures."""
    place = database.place_of(settings)
    if isinstance(place, Path):
        if not place.exists():
            return Finding("workers", True, "none yet")
        data_folder.check_writable([settings.data_dir, place])
    if database.schema(place) != database.newest_schema():
        return Finding("workers", True, "known once the database is migrated")
    with closing(Database(place)) as opened:
        alive = [worker for worker in Workers(opened).all() if worker.alive]
    told = [
        f"{worker.name} ({', '.join(_about(worker))}; {worker.jobs_in_flight} jobs)"
        for worker in alive
    ]
    versions = {worker.torch for worker in alive}
    advice = "install the same version of Darkroom on all: the same seed then makes one picture"
    detail = ", ".join(told) or "none runs"
    if len(versions) > 1:
        detail += f"; their versions of torch differ: {', '.join(sorted(versions))}"
    return Finding("workers", len(versions) <= 1, detail, advice)


def _about(worker: WorkerInfo) -> Iterator[str]:
    yield worker.device_name or worker.device
    yield f"torch {worker.torch}"
    if worker.draining:
        yield "draining"
    elif not worker.ready:
        yield "loading its model"


def _model(settings: Settings) -> Finding:
    catalog = ModelCatalog.of(settings, lambda: has_gpu(settings))
    names = [info.name for info in catalog.infos()]
    ok = settings.models.default in names
    advice = f"set models.default to one of these, or put a model in {settings.models_dir}"
    detail = f"{settings.models.default}; there is {', '.join(names)}"
    broken = ", ".join(found.name for found in catalog.broken())
    if broken:
        detail += f"; not usable: {broken} (`darkroom models list` says why)"
    return Finding("model", ok, detail, advice)


def check_additions(settings: Settings) -> Finding:
    """LoRAs, embeddings and upscalers: how many there are, and which files cannot be used."""
    adapters = AdapterCatalog.of(settings)
    upscalers = UpscalerCatalog.of(settings)
    # Those of the package cannot be used without spandrel, which is optional.
    theirs = {path.name for path in INCLUDED_UPSCALERS.iterdir()}
    own = [
        f
        for f in upscalers.broken()
        if f.file not in theirs or (settings.upscalers_dir / f.file).exists()
    ]
    found = {
        "LoRAs": (adapters.loras.entries(), adapters.loras.broken()),
        "embeddings": (adapters.embeddings.entries(), adapters.embeddings.broken()),
        "upscalers": (upscalers.entries(), own),
    }
    detail = ", ".join(f"{len(usable)} {kind}" for kind, (usable, _) in found.items())
    broken = [f"{file.file} {file.reason}" for _, files in found.values() for file in files]
    advice = "repair these files or remove them"
    return Finding("add-ons", not broken, "; ".join([detail, *broken]), advice)


def check_model(settings: Settings, name: str) -> Finding:
    """Load a model and make one picture with it, at its own size.

    Raises:
        UnknownModelError: there is no such model, or it cannot be used; says why.
    """
    ModelCatalog.of(settings, lambda: has_gpu(settings)).find(name)
    models = settings.models.model_copy(update={"default": name})
    return _picture(settings.model_copy(update={"models": models}))


def _picture(settings: Settings) -> Finding:
    """Make a picture with the default model: of nothing, or of a grey one if it starts from one."""
    from darkroom.engine import engine

    info = ModelCatalog.of(settings).find(None).info
    working = engine.from_settings(settings)
    began = time.monotonic()
    working.warm_up()
    loaded = time.monotonic()
    task = info.tasks[0]
    sources: dict[Task, dict[str, Any]] = {
        Task.TXT2IMG: {},
        Task.IMG2IMG: {"image": "grey"},
        Task.INPAINT: {"image": "grey", "mask_image": "grey"},
        Task.EDIT: {"references": ("grey",)},
    }
    pictures = sources[task]
    asked = {"model": info.name, "prompt": "a red fox", "seed": 7}
    request = RESOLVED[task].model_validate({**asked, **info.defaults.model_dump(), **pictures})
    grey = Image.new("RGB", (info.defaults.width, info.defaults.height), "grey")
    job = EngineJob(
        "doctor",
        request,
        image=grey if "image" in pictures else None,
        mask=Image.new("L", grey.size, "white") if "mask_image" in pictures else None,
        references=(grey,) if "references" in pictures else (),
    )
    working.submit(job)
    last: EngineEvent | None = None
    while working.in_flight():
        for event in working.tick():
            last = event
    if isinstance(last, Failed):
        return Finding("picture", False, last.detail, "see the lines above, and the log")
    seconds = time.monotonic() - loaded
    detail = f"{seconds:.1f} s on {working.device}, after {loaded - began:.1f} s to load the model"
    return Finding("picture", True, detail)
