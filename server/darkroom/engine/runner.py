"""Makes one call of one network, and takes its time."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from darkroom.engine.base import Meter
from darkroom.engine.scheduler import Call, Decode, Denoise, Prepare


@dataclass(frozen=True)
class Result:
    """What came of a call: its value, or the error that it raised."""

    value: Any = None
    error: Exception | None = None


class Runner:
    """Runs the scheduler's work. Used from one thread.

    Args:
        clock: seconds, monotonic.
        device: of the calls. On an accelerator a call returns when it is queued, so its seconds are
            taken by events in the queue, and are known some calls later.
    """

    def __init__(
        self, clock: Callable[[], float], device: torch.device, meter: Meter | None
    ) -> None:
        self._clock = clock
        self._device = device
        self._meter = meter
        self._timed: deque[tuple[Call, Callable[[], float | None]]] = deque()

    def run(self, work: Call) -> Result:
        """The result of a call; whatever it raises is in the result."""
        stop = self._start(waits=isinstance(work, Decode))
        try:
            value = self._run(work)
        except Exception as error:
            return Result(error=error)
        self._timed.append((work, stop()))
        return Result(value)

    def measured(self) -> list[tuple[Call, float]]:
        """The work whose seconds have become known since the last time, in order."""
        found: list[tuple[Call, float]] = []
        while self._timed:
            work, seconds = self._timed[0][0], self._timed[0][1]()
            if seconds is None:
                break
            self._timed.popleft()
            found.append((work, seconds))
            self._tell(work, seconds)
        return found

    def forget(self, model: str) -> None:
        """Drop the calls of a model whose seconds are not known yet: they keep it in memory."""
        self._timed = deque(each for each in self._timed if each[0].model.name != model)

    def _run(self, work: Call) -> Any:
        model, family = work.model, work.model.family
        match work:
            case Prepare(jobs=jobs):
                return family.prepare([active.job for active in jobs])
            case Denoise(samples=samples):
                return family.step(samples, model.limits.rows(samples[0].area))
            case Decode(pairs=pairs):
                return family.decode([sample for _, sample in pairs])

    def _start(self, *, waits: bool) -> Callable[[], Callable[[], float | None]]:
        """Start to take the time; the function that stops gives one that knows the seconds.

        Args:
            waits: whether the call waits for the queue, so that its seconds are known at once.
        """
        if self._device.type == "cpu":
            began = self._clock()

            def stop() -> Callable[[], float | None]:
                seconds = self._clock() - began
                return lambda: seconds

            return stop
        first = torch.Event(self._device, enable_timing=True)
        first.record()

        def stop_queued() -> Callable[[], float | None]:
            last = torch.Event(self._device, enable_timing=True)
            last.record()
            if waits:
                last.synchronize()
            return lambda: first.elapsed_time(last) / 1000 if last.query() else None

        return stop_queued

    def _tell(self, work: Call, seconds: float) -> None:
        if self._meter is None or work.model.costs is None:
            return
        match work:
            case Denoise(rows=rows):
                self._meter.denoised(rows.total(), seconds)
            case Decode(pairs=pairs):
                self._meter.decoded(len(pairs), seconds)
