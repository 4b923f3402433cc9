"""`darkroom fleet manage`: keeps an actor running for each worker that the queue needs.

A process of its own beside Ray's head: Ray ends programs that lose the head, and `darkroom fleet
start` starts this one again. It finds the actors that run by their names. Nothing that matters is
kept here or in Ray: which boxes there are and what is to be done is in the database.
"""

import time
from contextlib import closing
from typing import Any

import ray
import structlog
from sqlalchemy import func, select

from darkroom.config import Settings
from darkroom.ops.fleet import plan
from darkroom.ops.fleet.actor import WorkerActor
from darkroom.ops.fleet.node import BOX, NAMESPACE
from darkroom.queue.presence import Workers
from darkroom.responses import JobStatus
from darkroom.storage.boxes import Boxes
from darkroom.storage.database import Database, DatabaseUnavailableError, place_of
from darkroom.storage.tables import JobRow

log = structlog.get_logger()

LOOK_S = 2.0
GRACE_S = 10.0  # for a worker to end, on top of what its jobs get
PART = 0.001  # of a box's resource: a thousand workers fit


def run(settings: Settings) -> None:
    """Start and stop workers until this process is ended. Raises what Ray raises."""
    fleet = settings.fleet
    ray.init(
        address=f"{fleet.address}:{fleet.port}",
        namespace=NAMESPACE,
        log_to_driver=False,
        configure_logging=False,
        _node_ip_address=fleet.address,
    )
    planner = plan.Planner(fleet)
    with closing(Database(place_of(settings), settings.queue.database_timeout_s)) as database:
        while True:
            try:
                _look(settings, database, planner)
            except DatabaseUnavailableError as error:  # nothing is started or stopped meanwhile
                log.warning("the database cannot be asked", error=str(error))
            time.sleep(LOOK_S)


def _look(settings: Settings, database: Database, planner: plan.Planner) -> None:
    """One look at the queue, the boxes and the workers."""
    known = {box.name for box in Boxes(database).all()}
    there = {name: gpus for name, gpus in _nodes().items() if name in known}
    running = {name for name in ray.util.list_named_actors() if _end_if_removed(name, known)}
    places = plan.slots(there)
    wanted = planner.wanted(_pending(database), len(places), time.monotonic())
    workers = {worker.name: worker for worker in Workers(database).all()}
    start, stop = plan.changes(places, running, workers, wanted)
    for slot in start:
        log.info("starting a worker", worker=slot.worker, pending_for=wanted)
        _start(slot)
    for name in stop:
        log.info("stopping a worker that was not needed", worker=name)
        _stop(name, settings.queue.shutdown_timeout_s)


def _nodes() -> dict[str, int]:
    """The boxes whose nodes are there, and their numbers of GPUs."""
    return {
        resource.removeprefix(BOX): int(node["Resources"].get("GPU", 0))
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
        for resource in node["Resources"]
        if resource.startswith(BOX)
    }


def _pending(database: Database) -> int:
    """How many jobs wait or run."""
    unfinished = JobRow.status.in_((JobStatus.QUEUED, JobStatus.RUNNING))
    with database.read() as session:
        return session.scalar(select(func.count()).where(unfinished)) or 0


def _start(slot: plan.Slot) -> None:
    """Have Ray start a worker, and start it again whenever it ends."""
    actor = ray.remote(WorkerActor).options(
        name=slot.worker,
        lifetime="detached",
        max_restarts=-1,
        num_cpus=0,
        num_gpus=1 if slot.on_gpu else 0,
        resources={f"{BOX}{slot.box}": PART},
        get_if_exists=True,
    )
    actor.remote(slot.worker)


def _end_if_removed(worker: str, known: set[str]) -> bool:
    """Whether a worker's box is still one of the fleet; if not, the worker is ended."""
    if worker.rpartition("-")[0] in known:
        return True
    log.info("ending a worker whose box was removed", worker=worker)
    _end(_actor(worker))
    return False


def _stop(worker: str, timeout_s: float) -> None:
    """Have a worker return its jobs to the queue, and end it."""
    actor = _actor(worker)
    if actor is not None:
        try:
            ray.get(actor.stop.remote(), timeout=timeout_s + GRACE_S)
        except (ray.exceptions.RayError, TimeoutError) as error:
            log.warning("a worker does not stop by itself", worker=worker, error=str(error))
    _end(actor)


def _end(actor: Any) -> None:
    if actor is not None:
        ray.kill(actor, no_restart=True)


def _actor(worker: str) -> Any:
    """The actor of a worker; None if it has ended meanwhile."""
    try:
        return ray.get_actor(worker)
    except ValueError:
        return None
