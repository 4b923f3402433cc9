"""`darkroom worker`: builds the engine and the dispatcher, and runs them on this process's GPU."""

import os
import resource
import signal
import sys
from types import FrameType

import torch
from prometheus_client import disable_created_metrics

from darkroom.catalog import published
from darkroom.catalog.published import Has
from darkroom.config import Settings
from darkroom.engine import cpu, engine
from darkroom.ops.watchdog import Pulse, allowed_silence_s
from darkroom.queue.doorbell import doorbells
from darkroom.queue.leases import Leases
from darkroom.queue.worker import Dispatcher
from darkroom.queue.worker_metrics import Meters
from darkroom.storage import data_folder, database, reconcile
from darkroom.storage.files import files_of


def run(settings: Settings) -> None:
    """Run the worker until SIGTERM or SIGINT. The caller holds the lock of its name.

    Raises:
        OSError: the default model cannot be loaded.
    """
    # A core file would be as large as the models, and hold what people asked for.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    disable_created_metrics()  # type: ignore[no-untyped-call]
    with Pulse(settings.pulse_path, allowed_silence_s(settings)) as pulse:
        _work(settings, pulse)


def _work(settings: Settings, pulse: Pulse) -> None:
    cpu.limit_threads(settings)
    meters = Meters()
    working = engine.from_settings(settings, meter=meters)
    meters.describe(torch=torch.__version__, device=working.device, gpu_bytes=working.gpu_bytes)
    bells = doorbells(settings)
    opened = database.Database(database.place_of(settings), settings.queue.database_timeout_s)
    name, folder = settings.worker_name, data_folder.identity(settings)
    has = Has(settings, has_gpu=working.device != "cpu") if folder else None
    reconcile.at_worker_start(settings, opened, name)
    leases = Leases(
        opened,
        name,
        device=working.device,
        affinity_s=settings.queue.affinity_s,
        has=has,
        lease_s=settings.queue.lease_s,
        max_attempts=settings.queue.max_attempts,
        max_in_flight_per_client=settings.queue.max_in_flight_per_client,
    )
    leases.wait_for_name(folder)
    device_name = working.device_name

    def about() -> dict[str, object]:
        return {
            "folder": folder,
            "device_name": device_name,
            "torch": torch.__version__,
            "free_bytes": working.free_bytes(),
        }

    with bells.listen("worker") as bell:
        dispatcher = Dispatcher(
            leases=leases,
            files=files_of(settings),
            engine=working,
            bell=bell,
            ring_web=lambda: bells.ring("web"),
            settings=settings.queue,
            device=working.device,
            about=about,
            catalog=has.text if has else lambda: published.UNKNOWN,
            max_in_flight=settings.engine.max_jobs_in_flight,
            keep_alive_s=settings.engine.keep_alive_s,
            png_level=settings.engine.png_level,
            pulse=pulse.beat,
            meters=meters,
        )

        signals: list[int] = []

        def stop(number: int, _frame: FrameType | None) -> None:
            signals.append(number)
            if len(signals) > 1:
                dispatcher.hurry()
            else:
                dispatcher.stop()
            if not dispatcher.ready:
                # A model may load for minutes in a thread of its own, and there is nothing to keep.
                # `sys.exit` would wait for that thread.
                sys.stdout.flush()
                os._exit(0)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        dispatcher.run()
    bells.close()
    opened.close()
