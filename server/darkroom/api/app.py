"""The application factory: the one place that names the web process's concrete classes."""

import secrets
from threading import Semaphore

from flask import Flask
from prometheus_client import disable_created_metrics

from darkroom.api import context, errors, http
from darkroom.api.auth import access
from darkroom.api.auth.origin import AllowedOrigins, Proxies
from darkroom.api.auth.signed_urls import Signatures
from darkroom.api.callers import LOOKS, Callers
from darkroom.api.parse import BodyReader
from darkroom.api.prepare import Preparer, Sources
from darkroom.api.routes import (
    fleet,
    images,
    jobs,
    models,
    pairing,
    removal,
    submit,
    system,
    workers,
)
from darkroom.api.routes import (
    pulls as pull_routes,
)
from darkroom.asgi.streams import Streams
from darkroom.asgi.wait import Application
from darkroom.catalog.downloads import Hubs
from darkroom.catalog.hashes import Hashes
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog
from darkroom.catalog.upscalers import UpscalerCatalog
from darkroom.compat import a1111
from darkroom.compat.a1111.jobs import as_error as a1111_error
from darkroom.compat.openai import routes as openai
from darkroom.compat.openai.answers import as_error as openai_error
from darkroom.config import Settings, signing_key
from darkroom.images.decoder_pool import Decoders
from darkroom.ops.metrics import QueueMetrics
from darkroom.ops.puller import Puller
from darkroom.queue.doorbell import doorbells
from darkroom.queue.presence import Fleets, Workers
from darkroom.queue.pulls import Pulls
from darkroom.queue.retention import Janitor, Retention
from darkroom.queue.store import Store
from darkroom.queue.unloads import Unloads
from darkroom.storage import data_folder
from darkroom.storage.clients import Preferences, Tokens
from darkroom.storage.database import Database, place_of
from darkroom.storage.files import files_of, orphans_of
from darkroom.storage.reconcile import Review, is_shared
from darkroom.storage.shared_keys import agreement
from darkroom.webhooks import signing
from darkroom.webhooks.deliveries import Outbox
from darkroom.webhooks.sender import WebhookSender

RENDERINGS = 2  # thumbnails, other formats and timelines made at once
LEASE_MARGIN_S = 5.0  # on top of what an attempt to deliver a webhook may take


def create_app(settings: Settings) -> Application:
    """The web application. The database must be migrated."""
    app = Application("darkroom.api")
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config["MAX_CONTENT_LENGTH"] = settings.web.max_body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.web.max_body_bytes
    app.url_map.strict_slashes = False

    disable_created_metrics()  # type: ignore[no-untyped-call]
    database = Database(place_of(settings), settings.queue.database_timeout_s)
    files = files_of(settings)
    store = Store(database, settings=settings.queue)
    orphans = orphans_of(settings)
    retention = Retention(database, files, orphans, settings.retention)
    Janitor(retention.sweep, settings.retention.every_s).start()
    if is_shared(settings):
        review = Review(database, files, orphans, settings.queue.lease_s)
        Janitor(review.sweep, settings.retention.every_s).start()
    streams = Streams(store, settings.web.heartbeat_s)
    agree = agreement(settings, database)
    meters = http.WebMeters(lambda: streams.open)
    attempt_s = settings.webhooks.timeout_s + 2 * settings.queue.database_timeout_s
    webhook_sender = WebhookSender(
        Outbox(database, secrets.token_hex(8), attempt_s + LEASE_MARGIN_S),
        settings.webhooks,
        lambda: signing_key(signing.find(settings, agree)),
        meters.webhook_attempted,
    )
    decoders = Decoders(
        settings.web.decoders,
        settings.web.decode_timeout_s,
        settings.web.decode_memory_bytes,
        settings.web.max_upload_pixels,
    )
    folder = data_folder.identity(settings)
    fleets = Fleets(database, folder)
    local = catalog = ModelCatalog.of(settings, store.may_have_gpu)
    local_adapters = adapters = AdapterCatalog.of(settings)
    upscalers = UpscalerCatalog.of(settings)
    if folder:  # else all workers have what is in this folder
        catalog = ModelCatalog.of(
            settings,
            store.may_have_gpu,
            lambda: fleets.read().there.models,
            lambda name: fleets.read().lacks(name),
        )
        adapters = AdapterCatalog.of(settings)
        adapters.loras.elsewhere = lambda: fleets.read().there.loras
        adapters.embeddings.elsewhere = lambda: fleets.read().there.embeddings
        upscalers.elsewhere = lambda: fleets.read().there.upscalers
    hashes = Hashes(
        settings.hashes_path,
        lambda: (entry.path for entry in local.entries() if entry.layout != "folder"),
        lambda: (lora.path for lora in local_adapters.loras.entries()),
    )
    pulls = Pulls(database, settings.data_dir, folder)
    sources = Sources(store, decoders, settings.web.max_upload_bytes)
    here = context.Context(
        settings=settings,
        database=database,
        bodies=BodyReader(settings.web.max_upload_bytes, settings.data_dir),
        store=store,
        callers=Callers(store, settings.web.abandoned_s),
        doorbells=doorbells(settings),
        unloads=Unloads(database),
        pulls=pulls,
        puller=Puller(pulls, Hubs.of(settings), settings.pulls_lock_path),
        files=files,
        catalog=catalog,
        local_models=local,
        workers=Workers(database),
        fleet=fleets.read,
        adapters=adapters,
        upscalers=upscalers,
        hashes=hashes,
        sources=sources,
        preparer=Preparer(catalog, adapters, upscalers, hashes, sources, settings.webhooks.allow),
        rendering=Semaphore(RENDERINGS),
        streams=streams,
        queue_metrics=QueueMetrics(database, store.eta_errors),
        meters=meters,
        tokens=Tokens(database),
        guesses=access.Guesses(settings.auth.failures_per_minute),
        preferences=Preferences(database),
        signatures=Signatures(settings.signing_key_path, agree=agree),
        webhook_sender=webhook_sender,
    )
    if settings.web.abandoned_s:
        Janitor(here.end_unwanted_jobs, settings.web.abandoned_s / LOOKS).start()
    context.install(app, here)
    of_openai = dict.fromkeys(("/v1/", *openai.WITHOUT_VERSION), openai_error)
    errors.install(app, {"/sdapi/": a1111_error, **of_openai})
    http.install(app, meters, strict_transport=settings.tls.mode == "files")
    proxies = Proxies(settings.web.trusted_proxies)
    pages = AllowedOrigins(settings.web.allowed_origins)
    authenticator = access.Authenticator(here.tokens, here.guesses, settings.auth, proxies, pages)
    access.install(app, authenticator, settings.auth.requests_per_minute)
    add_routes(app)
    return app


def add_routes(app: Flask) -> None:
    """Register every route. The API document needs no more of an application."""
    ours = (submit, jobs, images, models, pull_routes, removal, workers, pairing, fleet, system)
    for module in (*ours, openai):
        app.register_blueprint(module.blueprint)
    for blueprint in (openai.without_version, *a1111.blueprints):
        app.register_blueprint(blueprint)
