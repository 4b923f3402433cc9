"""The objects that handlers use, kept on the application instead of in module globals."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Semaphore

import structlog
from flask import Flask, current_app

from darkroom.api.auth.access import Guesses
from darkroom.api.auth.signed_urls import Signatures
from darkroom.api.callers import Callers
from darkroom.api.http import WebMeters
from darkroom.api.parse import BodyReader
from darkroom.api.prepare import Preparer, Sources
from darkroom.asgi.streams import Streams
from darkroom.catalog.hashes import Hashes
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog
from darkroom.catalog.upscalers import UpscalerCatalog
from darkroom.config import Settings
from darkroom.ops.metrics import QueueMetrics
from darkroom.ops.puller import Puller
from darkroom.queue.doorbell import Doorbells
from darkroom.queue.presence import Fleet, Workers
from darkroom.queue.pulls import Pulls
from darkroom.queue.store import Store
from darkroom.queue.unloads import Unloads
from darkroom.storage.clients import Preferences, Tokens
from darkroom.storage.database import Database
from darkroom.storage.files import Files, FilesUnavailableError
from darkroom.webhooks.sender import WebhookSender

log = structlog.get_logger()

_KEY = "darkroom"


@dataclass(frozen=True)
class Context:
    settings: Settings
    database: Database
    bodies: BodyReader
    store: Store
    callers: Callers
    doorbells: Doorbells
    unloads: Unloads
    pulls: Pulls
    puller: Puller
    files: Files
    catalog: ModelCatalog
    local_models: ModelCatalog  # in this server's own folders
    workers: Workers
    fleet: Callable[[], Fleet]
    adapters: AdapterCatalog
    upscalers: UpscalerCatalog
    hashes: Hashes
    sources: Sources
    preparer: Preparer
    rendering: Semaphore  # held while a stored picture is decoded, which takes its pixels' memory
    streams: Streams
    queue_metrics: QueueMetrics
    meters: WebMeters
    tokens: Tokens
    guesses: Guesses
    preferences: Preferences
    signatures: Signatures
    webhook_sender: WebhookSender

    def end_unwanted_jobs(self) -> None:
        """Cancel the jobs whose callers left too long ago."""
        if self.callers.end_unwanted():
            self.ring_worker()

    def free_bytes(self) -> int:
        """Space left for pictures, or where bodies are kept if pictures are elsewhere."""
        free = self.files.free_bytes()
        return shutil.disk_usage(self.settings.data_dir).free if free is None else free

    def delete_files(self, names: Iterable[str]) -> None:
        """Delete files that have no records any more.

        What cannot be deleted now is put aside and deleted later, as files without records are.
        """
        try:
            for name in names:
                self.files.delete(name)
        except FilesUnavailableError as error:
            log.warning("files of deleted records are left", reason=str(error))

    def ring_worker(self) -> None:
        """Notify the workers that the queue has changed."""
        self.doorbells.ring("worker")


def context() -> Context:
    """The context of the application that serves the current request."""
    return context_of(current_app)


def context_of(app: Flask) -> Context:
    found: Context = app.extensions[_KEY]
    return found


def install(app: Flask, value: Context) -> None:
    app.extensions[_KEY] = value
