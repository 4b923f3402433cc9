"""A worker's models: which jobs suit those in memory, and when one is taken out of it."""

from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass, field

import structlog

from darkroom.engine.base import Engine
from darkroom.queue.affinity import Affinity, Models
from darkroom.queue.leases import Pick
from darkroom.queue.unloads import Unloads

log = structlog.get_logger()


@dataclass(eq=False)
class WorkerModels:
    """The models of one engine, for the thread that uses it.

    Attributes:
        keep_alive_s: a model that no job used for so long is taken out of memory; 0 is never.
    """

    engine: Engine
    unloads: Unloads
    affinity: Affinity
    _: KW_ONLY
    keep_alive_s: float
    _unloaded: int | None = field(default=None, init=False)  # the last request that was read

    def pick(self, in_use: Collection[str]) -> Pick:
        """Chooses the next job, while the jobs in the engine use these models."""
        models = Models(self.engine.resident(), self.engine.fits, in_use)
        return lambda due, others: self.affinity.next(due, others, models)

    def used(self, model: str, client: str) -> None:
        """A job of this client's uses the model, or has just used it."""
        self.affinity.used(model, client)

    def unload(self, in_use: Collection[str]) -> None:
        """Take out what was asked for since the last call, and what was idle for too long.

        The first call only learns which requests are older than this process.

        Raises:
            DatabaseUnavailableError: the requests cannot be read now.
        """
        if self._unloaded is None:
            self._unloaded = self.unloads.newest()
        for number, model in self.unloads.after(self._unloaded):
            self._unloaded = number
            if model in in_use:
                log.info("a model is in use and stays in memory", model=model)
            else:
                self.engine.unload(model)
        if self.keep_alive_s:
            for model in [*self.engine.resident()]:
                idle_s = self.affinity.unused_s(model)
                if model not in in_use and idle_s >= self.keep_alive_s:
                    log.info("a model was idle", model=model, seconds=round(idle_s))
                    self.engine.unload(model)
