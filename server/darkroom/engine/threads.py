"""How many threads compute on the CPU."""

import os

import torch
from loky import cpu_count

from darkroom.config import Settings


def count(settings: Settings) -> int:
    """Threads of one worker: what the settings or `OMP_NUM_THREADS` say, or its share of the cores.

    Those are the physical cores that this process may use, by its affinity and by the limit of its
    container (`docker run --cpus`), which torch does not look at. More threads than that wait for
    each other at the end of every operation.
    """
    if settings.engine.threads != "auto":
        return settings.engine.threads
    if "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    workers = settings.workers if isinstance(settings.workers, int) else 1
    cores: int = cpu_count(only_physical_cores=True)
    return max(1, cores // workers)


def limit(settings: Settings) -> None:
    """Have torch compute with so many threads from now on."""
    torch.set_num_threads(count(settings))
