"""A worker's models: which jobs suit those in memory."""

from collections.abc import Collection
from dataclasses import dataclass

from darkroom.engine.base import Engine
from darkroom.queue.affinity import Affinity, Models
from darkroom.queue.leases import Pick


@dataclass(eq=False)
class WorkerModels:
    """The models of one engine, for the thread that uses it."""

    engine: Engine
    affinity: Affinity

    def pick(self, in_use: Collection[str]) -> Pick:
        """Chooses the next job, while the jobs in the engine use these models."""
        models = Models(self.engine.resident(), self.engine.fits, in_use)
        return lambda due, others: self.affinity.next(due, others, models)

    def used(self, model: str, client: str) -> None:
        """A job of this client's uses the model, or has just used it."""
        self.affinity.used(model, client)
