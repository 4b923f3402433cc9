"""How many threads a worker computes with."""

import os
from collections.abc import Iterator

import pytest
import torch

from darkroom.config import EngineSettings, Settings
from darkroom.engine import processor


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
    assert processor.thread_count(Settings()) == 1


def test_workers_share_the_cores() -> None:
    alone = processor.thread_count(Settings())

    assert alone <= len(os.sched_getaffinity(0))
    assert processor.thread_count(Settings(workers=2)) == max(1, alone // 2)
    assert processor.thread_count(Settings(workers=64)) == 1


def test_the_settings_come_first_and_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    assert processor.thread_count(Settings(workers=2)) == torch.get_num_threads()
    assert processor.thread_count(Settings(engine=EngineSettings(threads=5))) == 5


def test_torch_computes_with_as_many() -> None:
    before = torch.get_num_threads()
    try:
        processor.limit_threads(Settings(engine=EngineSettings(threads=1)))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
