"""What a worker takes of the CPU: threads, and instructions."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from darkroom.config import EngineSettings, Settings
from darkroom.engine import cpu


@pytest.fixture(autouse=True)
def _unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def one_core() -> Iterator[None]:
    """Lets this process use one of the machine's cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.mark.usefixtures("one_core")
def test_no_more_than_cores_that_the_process_may_use() -> None:
    assert cpu.thread_count(Settings()) == 1


def test_workers_share_the_cores() -> None:
    alone = cpu.thread_count(Settings())

    assert alone <= len(os.sched_getaffinity(0))
    assert cpu.thread_count(Settings(workers=2)) == max(1, alone // 2)
    assert cpu.thread_count(Settings(workers=64)) == 1


def test_the_settings_come_first_and_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    assert cpu.thread_count(Settings(workers=2)) == torch.get_num_threads()
    assert cpu.thread_count(Settings(engine=EngineSettings(threads=5))) == 5


def test_bfloat16_is_multiplied_where_the_system_says_so() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())

    assert cpu.multiplies_bfloat16() == bool(flags & {"avx512_bf16", "amx_tile"})


def test_torch_computes_with_as_many() -> None:
    before = torch.get_num_threads()
    try:
        cpu.limit_threads(Settings(engine=EngineSettings(threads=1)))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
