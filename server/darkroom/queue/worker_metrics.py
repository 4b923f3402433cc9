"""Metrics of a worker, which `/metrics` of the web process includes."""

from collections.abc import Callable
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Meters:
    """The metrics of one worker process, from zero. Implements `engine.base.Meter`."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(namespace="darkroom_worker", registry=registry)
        seconds = partial(Histogram, buckets=SECONDS, registry=registry)
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self._ticks = seconds("darkroom_engine_tick_seconds", "One turn of the engine.")
        self._steps = seconds(
            "darkroom_unet_step_seconds", "One denoising step of all rows that share it."
        )
        self._rows = Histogram(
            "darkroom_unet_step_rows",
            "Rows that share a denoising step; an image with guidance takes two.",
            buckets=ROWS,
            registry=registry,
        )
        self._decodes = seconds("darkroom_vae_decode_seconds", "One decoding call.")
        self._pictures = counter("darkroom_vae_decoded_pictures", "Pictures decoded.")
        self._in_flight = gauge("darkroom_engine_jobs_in_flight", "Jobs worked on.")
        self._leases_lost = counter("darkroom_leases_lost", "Jobs that someone else took over.")
        self._gpu = gauge("darkroom_gpu_memory_bytes", "Taken on the GPU by the worker.")

    def describe(self, *, torch: str, device: str, gpu_bytes: Callable[[], int]) -> None:
        """Set the version of torch, the device, and what returns the memory allocated there.

        `gpu_bytes` is called from the heartbeat thread.
        """
        info = Info("darkroom_engine", "What develops the pictures.", registry=self._registry)
        info.info({"torch": torch, "device": device})
        self._gpu.set_function(gpu_bytes)

    def ticked(self, seconds: float, in_flight: int) -> None:
        self._ticks.observe(seconds)
        self._in_flight.set(in_flight)

    def denoised(self, rows: int, seconds: float) -> None:
        self._steps.observe(seconds)
        self._rows.observe(rows)

    def decoded(self, pictures: int, seconds: float) -> None:
        self._decodes.observe(seconds)
        self._pictures.inc(pictures)

    def lease_lost(self) -> None:
        self._leases_lost.inc()

    def idle(self) -> None:
        self._in_flight.set(0)

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry).decode()
