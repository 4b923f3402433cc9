"""What the handlers work with, kept on the app instead of in module globals."""

from dataclasses import dataclass
from threading import Semaphore

from flask import Flask, current_app

from darkroom.catalog.adapters import AdapterCatalog
from darkroom.catalog.models import ModelCatalog
from darkroom.catalog.upscalers import UpscalerCatalog
from darkroom.config import Settings
from darkroom.jobs import doorbell
from darkroom.jobs.census import Census
from darkroom.jobs.files import Files
from darkroom.jobs.preferences import Preferences
from darkroom.jobs.store import Store
from darkroom.jobs.tokens import Tokens
from darkroom.web.door.limits import Guesses
from darkroom.web.door.signatures import Signatures
from darkroom.web.journal import WebMeters
from darkroom.web.parsing.decoders import Decoders
from darkroom.web.serving.streams import Streams
from darkroom.web.webhooks.herald import Herald

_KEY = "darkroom"


@dataclass(frozen=True)
class Context:
    settings: Settings
    store: Store
    files: Files
    catalog: ModelCatalog
    adapters: AdapterCatalog
    upscalers: UpscalerCatalog
    decoders: Decoders
    rendering: Semaphore  # held while a stored picture is decoded, which takes its pixels' memory
    streams: Streams
    census: Census
    meters: WebMeters
    tokens: Tokens
    guesses: Guesses
    preferences: Preferences
    signatures: Signatures
    herald: Herald

    def ring_worker(self) -> None:
        """Tell the worker that there is something in the queue."""
        doorbell.ring(doorbell.address(self.settings.data_dir, "worker"))


def context() -> Context:
    """Of the application that serves the current request."""
    return context_of(current_app)


def context_of(app: Flask) -> Context:
    found = app.extensions[_KEY]
    assert isinstance(found, Context)
    return found


def install(app: Flask, value: Context) -> None:
    app.extensions[_KEY] = value
