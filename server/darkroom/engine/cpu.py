"""What the engine may use of the CPU: its cores and its instructions."""

import os

import torch
from loky import cpu_count

from darkroom.config import Settings


def thread_count(settings: Settings) -> int:
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


def limit_threads(settings: Settings) -> None:
    """Have torch compute with so many threads from now on."""
    torch.set_num_threads(thread_count(settings))


def multiplies_bfloat16() -> bool:
    """Whether it has instructions for it, AVX-512 BF16 or AMX; without them it is very slow."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
